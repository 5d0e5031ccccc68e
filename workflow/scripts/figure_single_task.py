"""Percentage of the teacher's score by loss, with the paper's marks."""

from pathlib import Path

import pandas as pd
from policy_distillation.figures import relative_scores, save_figure
from policy_distillation.training import logging_to

with logging_to(snakemake.log[0]):
    table = pd.read_csv(snakemake.input.table)
    save_figure(relative_scores(table, snakemake.params.recipes), Path(snakemake.output.png))
