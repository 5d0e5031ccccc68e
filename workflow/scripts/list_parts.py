"""List the parts of a data set with their digests."""

from pathlib import Path

from policy_distillation.joblog import logging_to
from policy_distillation.listing import write_listing

with logging_to(snakemake.log[0]):
    write_listing([Path(part) for part in snakemake.input], Path(snakemake.output[0]))
