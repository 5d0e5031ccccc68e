"""List the parts of a data set with their digests."""

from pathlib import Path

from policy_distillation.listing import write_listing
from policy_distillation.training import logging_to

with logging_to(snakemake.log[0]):
    write_listing([Path(part) for part in snakemake.input], Path(snakemake.output[0]))
