"""Train the Multi-DQN baseline: one network on the experience of several games."""

import os
from pathlib import Path

# Idle OpenMP threads wait by spinning, on the cores that the emulators want; updates want them awake. Read when torch
# loads.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")

from policy_distillation.dqn import DQN, train
from policy_distillation.evaluate import Evaluation
from policy_distillation.networks import Network
from policy_distillation.training import logging_to, prepare_process

machine, params = snakemake.config["machine"], snakemake.params
seed = int(snakemake.wildcards.seed)
with logging_to(snakemake.log[0]):
    prepare_process(seed, snakemake.threads)
    train(
        params.games,
        network=Network(**params.network),
        settings=DQN(**params.settings),
        evaluation=Evaluation(**params.evaluation),
        protocol=params.protocol,
        seed=seed,
        folder=Path(snakemake.output.agent).parent,
        device=machine["device"],
        precision=machine["precision"],
        checkpoint_seconds=machine["checkpoint_seconds"],
    )
