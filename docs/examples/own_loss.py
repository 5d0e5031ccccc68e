"""Distil with a loss of your own, in one file and without the workflow: record the teacher's play, learn, play.

    python docs/examples/own_loss.py resources/teachers/pong/agent.safetensors pong --output student.safetensors

The play is recorded once, as {game}.h5 beside the student, and used again. The student is a file like any other here:
watch, evaluate, inspect and export take it.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from policy_distillation.acting import EPSILON
from policy_distillation.checkpoints import save_agent
from policy_distillation.evaluate import Evaluation, mean_return, play_episodes
from policy_distillation.files import file_digest
from policy_distillation.networks import Agent, Network
from policy_distillation.optimizers import make_optimizer, scale_learning_rates, schedule_factor
from policy_distillation.parts import Part
from policy_distillation.provenance import provenance
from policy_distillation.readouts import Readout
from policy_distillation.recording import Dataset, dump_part
from policy_distillation.sliding_window import Window
from policy_distillation.training import prepare_process

PROTOCOL = "paper2015"
NET3 = Network(channels=(16, 16, 16), hidden=64)  # 4% of the teacher's parameters
PLAY = Dataset(hours_per_part=1, steps_per_hour=54_000, envs=10, epsilon=[0.05, 0.2], warmup_steps=27_000)
OUTPUTS = Readout("logits")  # what the student's are; or "q_values"
GAMES = Evaluation(episodes=32, envs=16, epsilon=EPSILON)


def loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Yours: of float32 (batch, actions), what the student puts out and the teacher's Q-values, a scalar.

    This one is NLL (paper, section 3) whose targets leave a tenth of the probability to chance. Its students' outputs
    are logits; for a loss that regresses Q-values, change ``OUTPUTS``, too.
    """
    return F.cross_entropy(student, teacher.argmax(1), label_smoothing=0.1)


def distil(part: Part, network: Network, updates: int, seed: int) -> Agent:
    """A student of the play in a part, all of which is held in memory."""
    window, rng = Window(part, part.hours), np.random.default_rng(seed)
    for hour in range(part.hours):
        window.push(part, hour)
    student = Agent(network, {part.game: part.action_ids}, {part.game: OUTPUTS})
    student.standardise_inputs([window.pixel_moments()])
    optimizer = make_optimizer("muon", student.parameters(), 8e-4, 1e-8, filters_learning_rate=1e-2)
    for update in range(updates):
        scale_learning_rates(optimizer, schedule_factor(update, updates, "linear"))
        observations, q_values = window.sample(64, rng)
        error = loss(student(observations, part.game), q_values)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        if (update + 1) % 500 == 0:
            print(f"update {update + 1:,} of {updates:,}, loss {error.item():.4f}")
    return student


def main(
    teacher: Path, game: str, /, output: Path = Path("student.safetensors"), updates: int = 3000, seed: int = 0
) -> None:
    """Record, learn, play.

    Args:
        teacher: its agent.safetensors.
        game: that it plays, as ale-py spells it.
        output: the student's file.
        updates: of 64 observations each.
        seed: of weights, batches and scores; and of the play, when it is recorded.
    """
    prepare_process(seed, threads=1)
    recorded = output.with_name(f"{game}.h5")
    if not recorded.exists():
        dump_part(teacher, game, PROTOCOL, 0, PLAY, seed, recorded)
    with Part(recorded) as part:
        if (part.teacher, part.settings) != (file_digest(teacher), asdict(PLAY)):
            raise SystemExit(f"{recorded}: another teacher's play, or recorded otherwise; move it away")
        student = distil(part, NET3, updates, seed)
    facts = {"protocol": part.protocol, "teachers": {game: part.teacher}, "seed": seed, "updates": updates}
    save_agent(output, student, {"kind": "student", "games": [game], **facts, **provenance()})
    episodes = play_episodes(student, game, part.protocol["name"], GAMES, seed)
    print(f"{output}: {mean_return(episodes):,.1f} points a game")


if __name__ == "__main__":
    tyro.cli(main)
