"""An experiment's figure: percentage of the teachers' scores, with the paper's marks."""

from pathlib import Path

import pandas as pd
from policy_distillation.figures import relative_scores, save_figure, scores_against_parameters
from policy_distillation.training import logging_to

with logging_to(snakemake.log[0]):
    draw = scores_against_parameters if snakemake.params.against == "parameters" else relative_scores
    save_figure(draw(pd.read_csv(snakemake.input.table), snakemake.params.variants), Path(snakemake.output.png))
