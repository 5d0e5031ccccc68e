"""Distil one student: one cell of the grid."""

from pathlib import Path

from policy_distillation import openmp

openmp.prepare("learn")  # before torch is loaded

from policy_distillation.distill import Recipe
from policy_distillation.evaluate import Evaluation
from policy_distillation.joblog import logging_to
from policy_distillation.listing import read_listing
from policy_distillation.networks import Network
from policy_distillation.run import Machine
from policy_distillation.students import distill_student
from policy_distillation.training import prepare_process

recipe = dict(snakemake.params.recipe)
recipe.pop("evaluation_episodes")  # among those of the evaluation
seed = int(snakemake.wildcards.seed)
games = snakemake.params.games
with logging_to(snakemake.log[0]):
    prepare_process(seed, snakemake.threads)
    distill_student(
        parts={game: read_listing(Path(listing)) for game, listing in zip(games, snakemake.input.parts, strict=True)},
        teachers=dict(zip(games, map(Path, snakemake.input.teachers), strict=False)),  # none unless the student drives
        network=Network(**snakemake.params.network),
        recipe=Recipe(**recipe),
        evaluation=Evaluation(**snakemake.params.evaluation),
        seed=seed,
        folder=Path(snakemake.output.agent).parent,
        machine=Machine.of_job(snakemake.config["machine"]),
    )
