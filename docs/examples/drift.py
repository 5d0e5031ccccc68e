"""Does a student that leaves its teacher's ways find back? Both play whole games, and in all of them both are asked.

    python docs/examples/drift.py resources/students/breakout/dqn/agent.safetensors \\
        resources/teachers/breakout/agent.safetensors breakout

Prints, by stretches of a game: how often the student's best action is the teacher's, and how much of the teacher's
Q-value it gives up, over all states. A student that does worse in its own games than in the teacher's meets states
there which the teacher's play never showed it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from policy_distillation.acting import EPSILON
from policy_distillation.checkpoints import load_agent
from policy_distillation.networks import Agent
from policy_distillation.play import Play
from policy_distillation.protocols import PROTOCOLS, Protocol


def drift(student: Agent, teacher: Agent, game: str, protocol: Protocol, games: int, seed: int) -> pd.DataFrame:
    """Each plays so many games, with 5% random actions. A row a state: player, slot, step, agree, given_up, reward."""
    rows, slots = [], np.arange(games)
    for player in ("teacher", "student"):
        play, playing = Play(game, protocol, games, seed), np.full(games, True)
        while playing.any():
            steps, choices = play.steps.copy(), student.q_values(play.observations, game).argmax(1)
            transition = play.step(teacher, EPSILON, student, games if player == "student" else 0)
            values = transition.q_values
            state = {
                "player": player,
                "slot": slots,
                "step": steps,
                "agree": values.argmax(1) == choices,
                "given_up": values.max(1) - values[slots, choices],
                "reward": transition.step.rewards,
            }
            rows.append(pd.DataFrame(state)[playing])
            playing &= ~transition.step.episode_ends
        play.close()
    return pd.concat(rows, ignore_index=True)


def by_stretch(states: pd.DataFrame, length: int, stretches: int) -> pd.DataFrame:
    """Means over stretches of so many steps, the last of which holds all that come later."""
    begin = (states["step"] // length).clip(upper=stretches - 1) * length
    means = states.assign(begin=begin).pivot_table(["agree", "given_up"], "begin", "player")
    means.columns = [f"{name}, {player} plays" for name, player in means.columns]
    return means.rename_axis("from step")


def main(student: Path, teacher: Path, game: str, /, games: int = 16, stretch: int = 300, seed: int = 5) -> None:
    torch.set_num_threads(1)
    (one, _), (other, _) = load_agent(student), load_agent(teacher)
    states = drift(one, other, game, PROTOCOLS["paper2015"], games, seed)
    print(by_stretch(states, stretch, 8).to_markdown(floatfmt=".4f"))
    for player, score in (states.groupby("player")["reward"].sum() / games).items():
        print(f"{player}: {score:.1f} points a game")


if __name__ == "__main__":
    tyro.cli(main)
