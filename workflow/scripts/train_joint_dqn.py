"""Train the Multi-DQN baseline: one network on the experience of several games."""

from pathlib import Path

from policy_distillation import openmp

openmp.prepare("train")  # before torch is loaded

from policy_distillation.dqn import DQN, learn
from policy_distillation.evaluate import Evaluation
from policy_distillation.hardware import job_device
from policy_distillation.joblog import logging_to
from policy_distillation.networks import Network
from policy_distillation.run import Machine
from policy_distillation.teachers import train_teacher
from policy_distillation.training import prepare_process

machine, params = snakemake.config["machine"], snakemake.params
seed = int(snakemake.wildcards.seed)
with logging_to(snakemake.log[0]):
    prepare_process(seed, snakemake.threads)
    train_teacher(
        learn,
        params.games,
        network=Network(**params.network),
        settings=DQN(**params.settings),
        evaluation=Evaluation(**params.evaluation),
        protocol=params.protocol,
        seed=seed,
        folder=Path(snakemake.output.agent).parent,
        machine=Machine(
            job_device(machine["device"]), machine["precision"], machine["checkpoint_seconds"], machine["tracker"]
        ),
    )
