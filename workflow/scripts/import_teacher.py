"""Take over a teacher that another library trained."""

from pathlib import Path

from policy_distillation.checkpoints import save_agent
from policy_distillation.importing.agents import describe, import_agent
from policy_distillation.training import logging_to, provenance

with logging_to(snakemake.log[0]):
    agent, metadata = import_agent(snakemake.params.source, snakemake.wildcards.game, snakemake.params.protocol)
    save_agent(Path(snakemake.output[0]), agent, {**metadata, "provenance": provenance()})
    print(describe(agent, metadata))
