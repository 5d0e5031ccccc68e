"""Learning curves of an experiment's students."""

from collections import defaultdict
from pathlib import Path

import pandas as pd
from policy_distillation.curve_figures import learning_curves
from policy_distillation.figures import save_figure
from policy_distillation.joblog import logging_to
from policy_distillation.scores import read_returns

with logging_to(snakemake.log[0]):
    facts = snakemake.params.facts
    curves = {game: defaultdict(list) for game in facts["games"]}
    for (games, variant), path in zip(facts["curves"], snakemake.input.students, strict=True):
        for game in games:
            curves[game][variant].append(pd.read_csv(path))
    teachers = zip(facts["games"], snakemake.input.teachers, strict=True)
    levels = {game: read_returns(path).mean() for game, path in teachers}
    save_figure(learning_curves(curves, levels), Path(snakemake.output.png))
