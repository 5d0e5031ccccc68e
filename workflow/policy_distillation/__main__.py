"""What people do by hand: ``python -m policy_distillation inspect FILE``, ``... evaluate AGENT``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .checkpoints import CheckpointError, load_agent
from .evaluate import Evaluation, mean_return, play_episodes
from .sidecar import describe_csv
from .teacher_dataset import DatasetError, Part
from .training import prepare_process, select_device, select_precision, stream

File = Annotated[Path, tyro.conf.Positional]


def inspect(file: File) -> None:
    """Say what an agent (.safetensors), part of a data set (.h5) or table (.csv) is, what made it, and if it is intact.

    Args:
        file: the file to look into.
    """
    if file.suffix == ".h5":
        with Part(file) as part:
            description = part.describe()
    elif file.suffix == ".csv":
        description = describe_csv(file)
    else:
        agent, metadata = load_agent(file)
        description = {**metadata, "parameters": agent.parameter_count}
    print(json.dumps(description, indent=2))


def evaluate(
    agent: File,
    game: str | None = None,
    protocol: Literal["paper2015", "machado2018"] | None = None,
    episodes: int = 32,
    envs: int = 16,
    epsilon: float = 0.05,
    seed: int = 0,
    device: str = "auto",
    threads: int = 2,
) -> None:
    """Let an agent play and print its mean return.

    Args:
        agent: an agent's file.
        game: which of its games; all of them by default.
        protocol: how the emulator is driven; the one the agent was made under by default.
        episodes: games to play, a multiple of envs.
        envs: emulators in lockstep.
        epsilon: probability of a random action.
        seed: of emulators and exploration.
        device: auto, cpu or cuda.
        threads: CPU threads.
    """
    prepare_process(seed, threads)
    place = select_device(device)
    player, metadata = load_agent(agent, place)
    for name in [game] if game else sorted(player.actions):
        played = play_episodes(
            player,
            name,
            protocol or metadata["protocol"]["name"],
            Evaluation(episodes, envs, epsilon),
            stream(seed, "evaluation"),
            select_precision("auto", place),
        )
        returns = sorted(episode.episode_return for episode in played)
        print(f"{name}: mean return {mean_return(played):.2f} over {len(played)} episodes", end=" ")
        print(f"(lowest {returns[0]:g}, median {returns[len(returns) // 2]:g}, highest {returns[-1]:g})")


def main() -> None:
    try:
        tyro.extras.subcommand_cli_from_dict({"inspect": inspect, "evaluate": evaluate}, prog="policy_distillation")
    except (CheckpointError, DatasetError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
