"""An experiment's table: the paper's rows from its cells' episodes; and aggregates over games and seeds."""

from collections import defaultdict
from pathlib import Path

import pandas as pd
from policy_distillation.files import atomic_path, file_digest
from policy_distillation.networks import Agent, Network
from policy_distillation.sidecar import read_sidecar, write_sidecar
from policy_distillation.tables import aggregate_table, experiment_table, read_returns, write_table
from policy_distillation.training import logging_to

LEGAL_ACTIONS = {"any": range(18)}  # the paper counts parameters with all of them

with logging_to(snakemake.log[0]):
    params = snakemake.params
    teachers = dict(zip(params.games, map(read_returns, snakemake.input.teachers), strict=True))
    students = defaultdict(list)
    for (game, variant), path in zip(params.columns, snakemake.input.students, strict=True):
        students[game, variant].append(read_returns(path))
    paper = pd.read_csv(snakemake.input.paper).query("experiment == @snakemake.wildcards.experiment")
    against = params.against
    if "parameters" in against:
        sizes = against["parameters"].items()
        against = {"parameters": {name: Agent(Network(**size), LEGAL_ACTIONS).parameter_count for name, size in sizes}}
    table = experiment_table(teachers, students, paper, against)
    print(table.to_string())
    for game, note in zip(table["game"], table["note"], strict=True):
        if note:
            print(f"WARNING: {game}: {note}")
    for game, path in zip(params.games, snakemake.input.teachers, strict=True):
        if read_sidecar(Path(path)).get("acting") == "sample":
            told = ["its teacher's policy is sampled, without epsilon", *table.loc[table["game"] == game, "note"]]
            table.loc[table["game"] == game, "note"] = "; ".join(filter(None, told))
    aggregates = aggregate_table(teachers, students)
    print(aggregates.to_string())
    with atomic_path(Path(snakemake.output.aggregates)) as temporary:
        aggregates.to_csv(temporary, index=False, float_format="%.6g")
    variants = list(dict.fromkeys(variant for _, variant in students))
    write_table(table, variants, params.title, Path(snakemake.output.csv))
    scores = [*snakemake.input.teachers, *snakemake.input.students]
    sidecars = [read_sidecar(Path(path)) for path in scores]
    facts = {
        "kind": "table",
        "experiment": snakemake.wildcards.experiment,
        **dict(params.items()),
        "protocols": sorted({facts["protocol"] for facts in sidecars}),
        "acting": {path: facts.get("acting") for path, facts in zip(scores, sidecars, strict=True)},
        "seeds": sorted({facts["agent"]["seed"] for facts in sidecars} - {None}),
        "scores": {path: file_digest(Path(path)) for path in scores},
    }
    for csv in (snakemake.output.csv, snakemake.output.aggregates):
        write_sidecar(Path(csv), facts)
