"""Learning curves of an experiment's students."""

from pathlib import Path

from policy_distillation.curve_figures import learning_curves, read_curves
from policy_distillation.figures import save_figure
from policy_distillation.joblog import logging_to
from policy_distillation.scores import read_returns

with logging_to(snakemake.log[0]):
    facts = snakemake.params.facts
    teachers = zip(facts["games"], snakemake.input.teachers, strict=True)
    levels = {game: read_returns(path).mean() for game, path in teachers}
    save_figure(learning_curves(read_curves(facts, snakemake.input.students), levels), Path(snakemake.output.png))
