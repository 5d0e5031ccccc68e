"""Let a teacher play and record one part of its data set."""

import os
from pathlib import Path

# Idle OpenMP threads wait by spinning, on the cores that the emulators want. Read when torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from policy_distillation.recording import Dataset, dump_part
from policy_distillation.training import logging_to, prepare_process

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
        device=snakemake.config["machine"]["device"],
    )
