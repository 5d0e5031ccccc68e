"""An experiment's figure: percentage of the teachers' scores with the paper's marks, or curves beside the teachers'."""

from collections import defaultdict
from pathlib import Path

import pandas as pd
from policy_distillation.figures import online_curves, relative_scores, save_figure, scores_against
from policy_distillation.training import logging_to

with logging_to(snakemake.log[0]):
    params = snakemake.params
    table = pd.read_csv(snakemake.input.table)
    if params.against == "teacher":
        teachers = dict(zip(params.games, map(pd.read_csv, snakemake.input.teachers), strict=True))
        students = defaultdict(dict)
        for (games, variant), path in zip(params.cells, snakemake.input.students, strict=True):
            for game in games:
                students[game].setdefault(variant, pd.read_csv(path))  # the first seed
        figure = online_curves(teachers, students)
    elif params.against:
        figure = scores_against(table, params.variants, params.against)
    else:
        figure = relative_scores(table, params.variants)
    save_figure(figure, Path(snakemake.output.png))
