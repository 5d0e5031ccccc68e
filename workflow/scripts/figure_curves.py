"""Learning curves of an experiment's students; several seeds of one variant are averaged."""

from collections import defaultdict
from pathlib import Path

import pandas as pd
from policy_distillation.figures import learning_curves, save_figure
from policy_distillation.tables import label, read_returns
from policy_distillation.training import logging_to

with logging_to(snakemake.log[0]):
    seeds = defaultdict(list)
    for (games, variant), path in zip(snakemake.params.cells, snakemake.input.students, strict=True):
        for game in games:
            seeds[game, variant].append(pd.read_csv(path))
    curves = defaultdict(dict)
    for (game, variant), rows in seeds.items():
        curves[game][label(variant)] = pd.concat(rows).groupby("update", as_index=False).mean()
    levels = {
        game: read_returns(path).mean()
        for game, path in zip(snakemake.params.games, snakemake.input.teachers, strict=True)
    }
    save_figure(learning_curves(curves, "update", levels), Path(snakemake.output.png))
