"""Train an agent by reinforcement: a game's teacher, or one of several games, the Multi-DQN baseline."""

from pathlib import Path

from policy_distillation import openmp

openmp.prepare("train")  # before torch is loaded

from policy_distillation import dqn, pqn
from policy_distillation.evaluate import Evaluation
from policy_distillation.joblog import logging_to
from policy_distillation.networks import Network
from policy_distillation.run import Machine
from policy_distillation.teachers import train_teacher
from policy_distillation.training import prepare_process

ALGORITHMS = {"dqn": (dqn.learn, dqn.DQN), "pqn": (pqn.learn, pqn.PQN)}

params = snakemake.params
seed = int(snakemake.wildcards.seed)
with logging_to(snakemake.log[0]):
    prepare_process(seed, snakemake.threads)
    learn, settings = ALGORITHMS[params.get("algorithm", "dqn")]
    train_teacher(
        learn,
        params.get("games") or [snakemake.wildcards.game],
        network=Network(**params.network),
        settings=settings(**params.settings),
        evaluation=Evaluation(**params.evaluation),
        protocol=params.protocol,
        seed=seed,
        folder=Path(snakemake.output.agent).parent,
        machine=Machine.of_job(snakemake.config["machine"]),
        snapshots=params.get("snapshots", 0),
        initial=Path(snakemake.input.initial[0]) if snakemake.input.get("initial") else None,
    )
