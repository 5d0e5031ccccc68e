"""``python -m policy_distillation export``: an agent or a data set, for other people's tools."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ..checkpoints import load_agent
from ..games import game_name
from ..networks import Agent
from . import ExportError
from .environment import read_protocol

Target = Literal["onnx", "hub-folder", "cleanrl", "sb3", "minari"]
EXTRAS: dict[str, str] = {"onnx": "onnx", "hub-folder": "hub", "sb3": "sb3", "minari": "minari"}
"""What of the package's optional dependencies each target needs."""


def export(
    files: Annotated[tuple[Path, ...], tyro.conf.Positional],
    to: Target,
    output: Path | None = None,
    game: str | None = None,
    int8: bool = False,
    dataset: Path | None = None,
    scores: Path | None = None,
    replay: Path | None = None,
    teachers: tuple[Path, ...] = (),
    episodes: int = 0,
    name: str | None = None,
) -> None:
    """Write an agent for ONNX, the model hub, CleanRL or Stable-Baselines3, or parts of a data set for Minari.

    Args:
        files: an agent's file; for Minari one or more parts of a data set.
        to: for whom.
        output: where it goes; by default named after the game, for Minari where Minari looks.
        game: which of the agent's games, where it has several.
        int8: for ONNX: in eight bits, calibrated on a data set.
        dataset: for int8: a part of the data set of the agent's teacher.
        scores: for the hub: the CSV of the agent's games; by default what lies beside the agent.
        replay: for the hub: a video, such as `record` makes.
        teachers: for the hub: the files of a student's teachers, to say where those came from.
        episodes: for the hub: games to play anew for its scores, a multiple of 16.
        name: for the hub: USER/REPOSITORY; for Minari: the data set's name, by default GAME/teacher-v0.
    """
    try:
        if not files:
            raise ExportError("name a file: an agent's, or parts of a data set for Minari")
        if to == "minari":
            print(f"written to {_minari(files, output, name)}")
            return
        if len(files) != 1:
            raise ExportError(f"{len(files)} files; --to {to} takes one agent")
        agent, metadata = load_agent(files[0])
        protocol = read_protocol(metadata.get("protocol"), files[0])
        if to == "hub-folder":
            from .hub import export_hub, find_scores, play_scores

            folder = output or Path("hub")
            played = (
                play_scores(agent, protocol.name, episodes) if episodes else find_scores(files[0], metadata, scores)
            )
            export_hub(files[0], folder, agent, metadata, played, replay, teachers, name)
            print(f"written to {folder}; to publish it: hf upload {name or 'USER/REPOSITORY'} {folder}")
            return
        _single(_choose(agent, game), metadata, to, output, int8, dataset)
    except ModuleNotFoundError as error:
        raise ExportError(
            f"--to {to} needs {error.name}: pip install 'policy-distillation[{EXTRAS.get(to, to)}]'"
        ) from None


def _minari(parts: tuple[Path, ...], root: Path | None, name: str | None) -> Path:
    from ..parts import Part
    from .minari import export_minari

    with Part(parts[0]) as part:
        game = part.game
    return export_minari(parts, name or f"{game}/teacher-v0", root)


def _choose(agent: Agent, game: str | None) -> Agent:
    if game is None and len(agent.actions) > 1:
        raise ExportError(f"this agent plays {', '.join(sorted(agent.actions))}: choose one with --game")
    return agent.single(game_name(game) if game else next(iter(agent.actions)))


def _single(
    agent: Agent, metadata: dict[str, Any], to: Target, output: Path | None, int8: bool, dataset: Path | None
) -> None:
    """An agent of one game, as one file."""
    (game,) = agent.actions
    if to == "onnx":
        from .deployment import describe_speed
        from .int8 import quantise
        from .onnx import OnnxAgent, export_onnx

        path = output or Path(f"{game}{'_int8' if int8 else ''}.onnx")
        if int8 != (dataset is not None):
            raise ExportError("--int8 and --dataset, a part of the data set of the agent's teacher, go together")
        if dataset is None:
            export_onnx(agent, metadata, path)
        else:
            with tempfile.TemporaryDirectory() as folder:
                whole = Path(folder, "float32.onnx")
                export_onnx(agent, metadata, whole)
                print(quantise(whole, dataset, path).describe())
        print(describe_speed(OnnxAgent(path), game))
    elif to == "cleanrl":
        from .libraries import export_cleanrl

        path = output or Path(f"{game}.cleanrl_model")
        export_cleanrl(agent, path)
    else:
        from .libraries import export_sb3

        path = (output or Path(f"{game}.zip")).with_suffix(".zip")
        export_sb3(agent, path)
    print(f"written to {path}, {path.stat().st_size:,} bytes")
