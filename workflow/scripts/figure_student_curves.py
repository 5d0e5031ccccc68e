"""Learning curves of the students; several seeds of one recipe are averaged."""

from collections import defaultdict
from pathlib import Path

import pandas as pd
from policy_distillation.figures import learning_curves, save_figure
from policy_distillation.tables import read_returns
from policy_distillation.training import logging_to

with logging_to(snakemake.log[0]):
    seeds = defaultdict(list)
    for (game, recipe, _seed), path in zip(snakemake.params.cells, snakemake.input.students, strict=True):
        seeds[game, recipe].append(pd.read_csv(path))
    curves = defaultdict(dict)
    for (game, recipe), rows in seeds.items():
        curves[game][recipe.upper()] = pd.concat(rows).groupby("update", as_index=False).mean()
    levels = {
        game: read_returns(path).mean()
        for game, path in zip(snakemake.params.games, snakemake.input.teachers, strict=True)
    }
    save_figure(learning_curves(curves, "update", levels), Path(snakemake.output.png))
