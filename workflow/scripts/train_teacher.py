"""Train a game's teacher."""

import os
from pathlib import Path

# Idle OpenMP threads wait by spinning, on the cores that the emulators want; updates want them awake. Read when torch
# loads.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")

from policy_distillation import dqn, pqn
from policy_distillation.evaluate import Evaluation
from policy_distillation.networks import Network
from policy_distillation.training import logging_to, prepare_process

machine, params = snakemake.config["machine"], snakemake.params
game, seed = snakemake.wildcards.game, int(snakemake.wildcards.seed)
with logging_to(snakemake.log[0]):
    prepare_process(seed, snakemake.threads)
    common = {
        "network": Network(**params.network),
        "evaluation": Evaluation(**params.evaluation),
        "protocol": params.protocol,
        "seed": seed,
        "folder": Path(snakemake.output.agent).parent,
        "device": machine["device"],
        "precision": machine["precision"],
        "checkpoint_seconds": machine["checkpoint_seconds"],
        "snapshots": params.snapshots,
        "initial": Path(snakemake.input.initial) if snakemake.input.initial else None,
    }
    if params.algorithm == "pqn":
        pqn.train(game, settings=pqn.PQN(**params.settings), **common)
    else:
        dqn.train([game], settings=dqn.DQN(**params.settings), **common)
