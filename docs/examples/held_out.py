"""Does a student lack play or updates? Its teacher's choices in play that it learned from, and in play that it did not.

    snakemake --profile profiles/more_play -- results/more_play/datasets/beam_rider/part2.h5
    python docs/examples/held_out.py results/more_play/datasets/beam_rider/part2.h5 AGENT...

Prints for each agent, over states drawn from a part: the KL divergence at the paper's temperature, how often its best
action is the teacher's, and how much of the teacher's Q-value its best action gives up. A student that does much better
on parts that it learned from has begun to know them by heart, and lacks play; one that does as badly there lacks
updates, or the network. Parts of one recording differ by their seeds alone, so any that a student never saw will do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import tyro
from policy_distillation.checkpoints import load_agent
from policy_distillation.losses import KL
from policy_distillation.networks import Agent
from policy_distillation.parts import Part
from policy_distillation.sliding_window import Window


def compare(agent: Agent, game: str, observations: torch.Tensor, teacher_q: torch.Tensor) -> dict[str, float]:
    """Means over states: observations (states, 4, 84, 84) uint8, the teacher's Q-values (states, actions) float32."""
    with torch.no_grad():
        q_values = torch.cat([agent(block, game) for block in observations.split(512)])
    best = q_values.argmax(1, keepdim=True)
    given_up = teacher_q.max(1).values - teacher_q.gather(1, best)[:, 0]
    agrees = best[:, 0] == teacher_q.argmax(1)
    return {
        "kl": KL(0.01)(q_values, teacher_q).item(),
        "agreement": agrees.float().mean().item(),
        "given_up": given_up.mean().item(),
    }


def main(path: Path, agents: list[Path], /, states: int = 8192, seed: int = 0) -> None:
    torch.set_num_threads(1)
    with Part(path) as part:
        window = Window(part, part.hours)
        for hour in range(part.hours):
            window.push(part, hour)
        drawn = window.sample(states, np.random.default_rng(seed))
        for agent in agents:
            means = compare(load_agent(agent)[0], part.game, *drawn)
            print(agent, *(f"{name} {mean:.4f}" for name, mean in means.items()), sep="  ")


if __name__ == "__main__":
    tyro.cli(main)
