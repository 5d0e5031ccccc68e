"""An experiment's table: the paper's rows from its cells' episodes."""

from collections import defaultdict
from pathlib import Path

import pandas as pd
from policy_distillation.networks import Agent, Network
from policy_distillation.tables import experiment_table, read_returns, write_table
from policy_distillation.training import logging_to

LEGAL_ACTIONS = {"any": range(18)}  # the paper counts parameters with all of them


def parameters(sizes):
    return Agent(Network(**sizes), LEGAL_ACTIONS).parameter_count


with logging_to(snakemake.log[0]):
    params = snakemake.params
    teachers = dict(zip(params.games, map(read_returns, snakemake.input.teachers), strict=True))
    students = defaultdict(list)
    for (game, variant), path in zip(params.columns, snakemake.input.students, strict=True):
        students[game, variant].append(read_returns(path))
    paper = pd.read_csv(snakemake.input.paper).query("experiment == @snakemake.wildcards.experiment")
    sizes = None
    if params.against == "parameters":
        sizes = {name: parameters(network) for name, network in params.networks.items()}
    table = experiment_table(teachers, students, paper, sizes, parameters(params.teacher_network))
    print(table.to_string())
    for note in filter(None, table["note"]):
        print(f"WARNING: {note}")
    variants = list(dict.fromkeys(variant for _, variant in students))
    write_table(table, variants, params.title, Path(snakemake.output.csv))
