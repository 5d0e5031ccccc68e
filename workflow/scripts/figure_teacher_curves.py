"""Learning curves of the teachers."""

from pathlib import Path

import pandas as pd
from policy_distillation.curve_figures import learning_curves
from policy_distillation.figures import save_figure
from policy_distillation.joblog import logging_to

with logging_to(snakemake.log[0]):
    paths = zip(snakemake.params.games, snakemake.input, strict=True)
    curves = {game: {"teacher": [pd.read_csv(path)]} for game, path in paths}
    save_figure(learning_curves(curves), Path(snakemake.output.png))
