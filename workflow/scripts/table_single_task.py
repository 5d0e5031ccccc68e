"""Table 1 of the paper."""

from collections import defaultdict
from pathlib import Path

import pandas as pd
from policy_distillation.tables import read_returns, single_task_table, write_table
from policy_distillation.training import logging_to

with logging_to(snakemake.log[0]):
    teachers = dict(zip(snakemake.params.games, map(read_returns, snakemake.input.teachers), strict=True))
    students = defaultdict(list)
    for (game, recipe, _seed), path in zip(snakemake.params.cells, snakemake.input.students, strict=True):
        students[game, recipe].append(read_returns(path))
    paper = pd.read_csv(snakemake.input.paper).query("experiment == 'single_task'")
    table = single_task_table(teachers, students, paper)
    print(table.to_string())
    recipes = list(dict.fromkeys(recipe for _, recipe in students))
    write_table(table, recipes, "Single-task distillation", Path(snakemake.output.csv))
