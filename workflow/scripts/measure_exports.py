"""Score and time an agent in torch, in ONNX and in eight bits."""

from pathlib import Path

from policy_distillation import openmp

openmp.prepare("play")  # before torch is loaded

from policy_distillation.checkpoints import load_agent
from policy_distillation.evaluate import Evaluation
from policy_distillation.exporting.deployment import measure, write_csv
from policy_distillation.files import file_digest
from policy_distillation.hardware import job_device
from policy_distillation.joblog import logging_to
from policy_distillation.provenance import provenance
from policy_distillation.sidecar import write_sidecar
from policy_distillation.training import prepare_process

params, output = snakemake.params, Path(snakemake.output.csv)
with logging_to(snakemake.log[0]):
    prepare_process(params.seed, snakemake.threads)
    job_device("cpu")
    made_by = provenance()
    files = [Path(path) for path in snakemake.input.files]
    rows = measure(
        Path(snakemake.input.agent),
        snakemake.wildcards.game,
        files,
        Path(snakemake.input.part),
        Evaluation(**params.evaluation),
        params.seed,
        load_agent(Path(snakemake.input.teacher))[0] if snakemake.input.teacher else None,
    )
    write_csv(rows, output)
    digests = {path: file_digest(Path(path)) for path in snakemake.input}
    write_sidecar(output, {"kind": "exports", **dict(params.items()), "files": digests}, made_by)
