"""Performance profiles of an experiment's variants."""

from pathlib import Path

import pandas as pd
from policy_distillation.figures import save_figure
from policy_distillation.joblog import logging_to
from policy_distillation.score_figures import profiles

with logging_to(snakemake.log[0]):
    save_figure(profiles(pd.read_csv(snakemake.input[0])), Path(snakemake.output.png))
