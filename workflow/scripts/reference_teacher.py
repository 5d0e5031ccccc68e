"""A trained teacher as a small file: float16 weights, and its learning curve beside it."""

from pathlib import Path

import torch
from policy_distillation.checkpoints import load_agent, save_agent
from policy_distillation.files import copy_file
from policy_distillation.joblog import logging_to

with logging_to(snakemake.log[0]):
    agent, metadata = load_agent(Path(snakemake.input.agent))
    save_agent(Path(snakemake.output.agent), agent, metadata, torch.float16)
    copy_file(Path(snakemake.input.progress[0]), Path(snakemake.output.progress))
