"""Train a game's teacher."""

from pathlib import Path

from policy_distillation.dqn import DQN, train
from policy_distillation.evaluate import Evaluation
from policy_distillation.networks import Network
from policy_distillation.training import logging_to, prepare_process

machine = snakemake.config["machine"]
settings = DQN(**snakemake.params.settings)
seed = int(snakemake.wildcards.seed)
with logging_to(snakemake.log[0]):
    prepare_process(seed, snakemake.threads)
    train(
        games=[snakemake.wildcards.game],
        network=Network(**snakemake.params.network),
        settings=settings,
        evaluation=Evaluation(settings.evaluation_episodes, **snakemake.params.evaluation),
        protocol=snakemake.params.protocol,
        seed=seed,
        folder=Path(snakemake.output.agent).parent,
        device=machine["device"],
        precision=machine["precision"],
        checkpoint_seconds=machine["checkpoint_seconds"],
    )
