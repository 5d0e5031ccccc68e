"""Let a teacher play and record one part of its data set."""

from pathlib import Path

from policy_distillation import openmp

openmp.prepare("play")  # before torch is loaded

from policy_distillation.hardware import job_device
from policy_distillation.joblog import logging_to
from policy_distillation.recording import Dataset, dump_part
from policy_distillation.training import prepare_process

teacher = Path(snakemake.input.teacher)
if teacher.is_dir():  # the snapshots of one that was learning
    teacher = teacher / f"{snakemake.wildcards.part}.safetensors"
with logging_to(snakemake.log[0]):
    prepare_process(snakemake.params.seed, snakemake.threads)
    dump_part(
        teacher_path=teacher,
        game=snakemake.wildcards.game,
        protocol=snakemake.params.protocol,
        part=int(snakemake.wildcards.part),
        settings=Dataset(**snakemake.params.settings),
        seed=snakemake.params.seed,
        path=Path(snakemake.output[0]),
        device=job_device("cpu"),
    )
