"""Take over a teacher that another library trained, or snapshots of one."""

from pathlib import Path

from policy_distillation.checkpoints import save_agent
from policy_distillation.hardware import job_device
from policy_distillation.importing.agents import describe, import_agent, import_snapshots
from policy_distillation.joblog import logging_to
from policy_distillation.provenance import provenance

with logging_to(snakemake.log[0]):
    job_device("cpu")
    params, output = snakemake.params, Path(snakemake.output[0])
    source = params.source, snakemake.wildcards.game, params.protocol
    if snakemake.rule == "import_snapshots":
        output.mkdir(parents=True, exist_ok=True)
        agents = enumerate(import_snapshots(*source, params.snapshots))
        imported = ((output / f"{part}.safetensors", *agent) for part, agent in agents)
    else:
        imported = [(output, *import_agent(*source))]
    for path, agent, metadata in imported:
        save_agent(path, agent, {**metadata, "provenance": provenance()})
        print(describe(agent, metadata))
