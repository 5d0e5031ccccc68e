"""An experiment's scores: percentages of the teachers' with the paper's marks, or curves beside the teachers'."""

from pathlib import Path

import pandas as pd
from policy_distillation.curve_figures import online_curves, read_curves
from policy_distillation.figures import save_figure
from policy_distillation.joblog import logging_to
from policy_distillation.score_figures import relative_scores, scores_against

with logging_to(snakemake.log[0]):
    facts = snakemake.params.facts
    table = pd.read_csv(snakemake.input.table)
    if facts["against"] == "teacher":
        teachers = dict(zip(snakemake.params.taught, map(pd.read_csv, snakemake.input.teachers), strict=True))
        students = read_curves(facts, snakemake.input.students)
        figure = online_curves(teachers, students, table.set_index("game")["teacher"].to_dict())
    elif facts["against"]:
        figure = scores_against(table, facts["series"], facts["against"])
    else:
        figure = relative_scores(table, facts["variants"])
    save_figure(figure, Path(snakemake.output.png))
