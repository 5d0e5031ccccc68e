"""What an update costs by optimiser, batch and network: what `snakemake cost` scales the rates of results.json by.

    python benchmarks/update_costs.py

Processor time of one thread, so that other processes on the machine hardly matter; medians of seven turns, in which the
shapes take turns.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from policy_distillation.cost import update_ms
from policy_distillation.losses import make_loss
from policy_distillation.networks import Agent, Network
from policy_distillation.optimizers import make_optimizer
from policy_distillation.training import prepare_process, select_device, select_precision

NETWORKS: dict[str, dict[str, Any]] = {
    "dqn": {"channels": [32, 64, 64], "hidden": 512},
    "net1": {"channels": [16, 32, 32], "hidden": 256},
    "net3": {"channels": [16, 16, 16], "hidden": 64},
    "multi10": {"channels": [64, 64, 64], "hidden": 1500, "controller": 128},
}
SHAPES = [
    *(("dqn", optimizer, batch) for optimizer in ("adam", "rmsprop", "muon") for batch in (32, 64, 128, 256)),
    *(
        (name, optimizer, batch)
        for name in ("net1", "net3", "multi10")
        for optimizer, batch in (("adam", 128), ("rmsprop", 32))
    ),
]


class Student:
    def __init__(self, name: str, optimizer: str, batch: int) -> None:
        self.agent = Agent(Network(**NETWORKS[name]), {"pong": range(6)})
        self.optimizer = make_optimizer(optimizer, self.agent.parameters(), 1e-4, 1e-4)
        self.observations = torch.randint(0, 256, (batch, 4, 84, 84), dtype=torch.uint8)
        self.q_values, self.updates = torch.randn(batch, 6), max(2, 256 // batch)
        self.loss, self.precision = make_loss("kl", 0.01), select_precision("auto", select_device("cpu"))

    def milliseconds(self) -> float:
        begin = time.process_time()
        for _ in range(self.updates):
            loss = self.loss(self.agent(self.observations, "pong", self.precision), self.q_values)
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self.optimizer.step()
        return 1000 * (time.process_time() - begin) / self.updates


prepare_process(seed=0, threads=1)
students = {shape: Student(*shape) for shape in SHAPES}
turns = [{shape: student.milliseconds() for shape, student in students.items()} for _ in range(8)][1:]
print("network  optimizer  batch  ms/update  fitted")
for name, optimizer, batch in SHAPES:
    measured = statistics.median(turn[name, optimizer, batch] for turn in turns)
    print(f"{name:<8} {optimizer:<9} {batch:>6} {measured:>10.2f} {update_ms(optimizer, batch, NETWORKS[name]):>7.2f}")
