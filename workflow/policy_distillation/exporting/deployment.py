"""What exporting costs and gains: score, bytes, latency and throughput of an agent in torch, ONNX and int8.

    python -m policy_distillation.exporting.deployment PART.h5 AGENT... [--episodes 64] [--output deployment.csv]

Times are of one thread and are its processor time, not the clock's: what it takes on a core that it has to itself.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import tyro
from numpy.typing import NDArray

from ..acting import EPSILON
from ..atari import SIDE, STACK
from ..checkpoints import load_agent
from ..evaluate import Actor, Evaluation, play_episodes
from ..files import atomic_path, check_output
from ..header import protocol_name
from ..networks import Agent
from ..parts import Part
from ..statistics import mean_return
from ..stopping import told_in_a_line
from ..training import prepare_process, stream
from . import ONNX_MODULES, ExportError, need
from .int8 import players, quantise, recorded
from .onnx import OnnxAgent, export_onnx

BATCH = 64
SECONDS = 1.0
"""Of processor time that each measurement lasts, after a warm-up."""


@dataclass(frozen=True)
class Measured:
    """One agent in one form."""

    agent: str
    game: str
    parameters: int
    outputs: str
    form: str
    """``torch``, ``onnx`` or ``onnx int8``."""
    bytes: int
    agreement: float
    """Share of recorded observations in which its best action is torch's."""
    score: float
    """Mean return over ``episodes`` games, and its 95% bootstrap interval."""
    low: float
    high: float
    episodes: int
    latency_ms: float
    """For one observation."""
    per_second: float
    """Observations, in batches of 64."""


def measure(
    agent_path: Path,
    game: str,
    files: Sequence[Path],
    part_path: Path,
    evaluation: Evaluation,
    seed: int,
    teacher: Agent | None = None,
) -> list[Measured]:
    """Play and time an agent in torch and in each of the ONNX files.

    Args:
        part_path: a part of its teacher's data set, whose observations it is timed on.
        teacher: who plays the first steps under ``starts: teacher``.
    """
    whole, metadata = load_agent(agent_path)
    protocol = protocol_name(metadata, agent_path)
    agent = whole.single(game)
    with Part(part_path) as part:
        observations = recorded(part, part.times // 2, part.times, 512, np.random.default_rng(seed))
    forms: list[tuple[str, Path, Actor]] = [("torch", agent_path, agent.frozen("float32"))]
    for path in files:
        exported = OnnxAgent(path)
        forms.append(("onnx int8" if "int8" in exported.metadata else "onnx", path, exported))
    best = agent.q_values(observations, game).argmax(1)
    rows = []
    for form, path, player in forms:
        episodes = play_episodes(player, game, protocol, evaluation, stream(seed, "evaluation"), "float32", teacher)
        returns = np.array([episode.episode_return for episode in episodes])
        low, high = mean_return([returns]).interval()
        latency, batch = (processor_seconds(player, game, observations[:size]) for size in (1, BATCH))
        rows.append(
            Measured(
                agent=str(agent_path),
                game=game,
                parameters=agent.parameter_count,
                outputs=agent.readouts[game].outputs,
                form=form,
                bytes=path.stat().st_size,
                agreement=float((player.q_values(observations, game).argmax(1) == best).mean()),
                score=float(returns.mean()),
                low=low,
                high=high,
                episodes=len(returns),
                latency_ms=1000 * latency,
                per_second=BATCH / batch,
            )
        )
        print(f"{form:<10} {rows[-1].score:,.1f} [{low:,.1f}, {high:,.1f}]  {rows[-1].latency_ms:.2f} ms", flush=True)
    return rows


def processor_seconds(player: Actor, game: str, observations: NDArray[np.uint8]) -> float:
    """Processor time of one call, the median of many, with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(3):
            player.q_values(observations, game)
        times: list[float] = []
        while sum(times) < SECONDS:
            start = time.thread_time()
            player.q_values(observations, game)
            times.append(time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    return float(np.median(times))


def describe_speed(player: Actor, game: str) -> str:
    """Latency and throughput, on noise: what is seen does not matter."""
    noise = np.random.default_rng(0).integers(0, 256, (BATCH, STACK, SIDE, SIDE), dtype=np.uint8)
    one, batch = (processor_seconds(player, game, noise[:size]) for size in (1, BATCH))
    return f"one core: {1000 * one:.2f} ms for an observation, {BATCH / batch:,.0f} a second in batches of {BATCH}"


def markdown(rows: Sequence[Measured]) -> str:
    """The table for people."""
    lines = [
        "| game | parameters | form | score [95% interval] | same action | kB | ms at batch 1 | 1/s at batch 64 |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.game} | {row.parameters:,} | {row.form} | {row.score:,.1f} [{row.low:,.1f}, {row.high:,.1f}] | "
        f"{100 * row.agreement:.1f}% | {row.bytes / 1000:,.0f} | {row.latency_ms:.2f} | {row.per_second:,.0f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def write_csv(rows: Sequence[Measured], path: Path) -> None:
    """One row for each agent, game and form."""
    with atomic_path(path) as temporary:
        pd.DataFrame([asdict(row) for row in rows]).to_csv(temporary, index=False)


def read_csv(path: Path) -> list[Measured]:
    """The rows that a CSV holds; none where there is none. Raises ExportError for another table."""
    try:
        rows = pd.read_csv(path).to_dict("records") if path.exists() else []
        return [Measured(**{str(key): value for key, value in row.items()}) for row in rows]
    except (TypeError, ValueError):
        raise ExportError(f"{path}: not a table that this command wrote; choose another with --output") from None


def main(
    part: Annotated[Path, tyro.conf.Positional],
    agents: Annotated[tuple[Path, ...], tyro.conf.Positional],
    episodes: int = 64,
    envs: int = 16,
    epsilon: float = EPSILON,
    seed: int = 0,
    threads: int = 2,
    output: Path = Path("deployment.csv"),
) -> None:
    """Export agents to ONNX and int8, score and time them.

    Args:
        part: a part of the data set of the agents' teacher.
        agents: files of agents.
        episodes: games that each of them plays in each form, a multiple of envs.
        envs: emulators.
        epsilon: probability of a random action.
        seed: of emulators, exploration and calibration.
        threads: CPU threads, for playing; times are of one.
        output: rows are added to this CSV.
    """
    prepare_process(seed, threads)
    evaluation = Evaluation(episodes, envs, epsilon)
    need("measuring", "onnx", *ONNX_MODULES)
    check_output(output, [part, *agents])
    measured = read_csv(output)
    with Part(part) as opened:
        game = opened.game
    for path in agents:
        agent, metadata = load_agent(path)
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, "agent.onnx"), Path(folder, "int8.onnx")]
            export_onnx(agent.single(game), metadata, files[0])
            print(f"{path}: {quantise(files[0], part, files[1], players(path, metadata), seed).describe()}")
            measured += measure(path, game, files, part, evaluation, seed)
        write_csv(measured, output)
    print(markdown(measured))


if __name__ == "__main__":
    with told_in_a_line():
        tyro.cli(main)
