"""``python -m policy_distillation export``: an agent or a data set, for other people's tools."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ..checkpoints import load_agent
from ..files import check_output, file_digest
from ..games import game_name
from ..networks import Agent
from . import ONNX_MODULES, ExportError, need
from .environment import read_protocol

Target = Literal["onnx", "hub-folder", "cleanrl", "sb3", "minari"]
NEEDS: dict[Target, tuple[str, ...]] = {
    "onnx": ("onnx", *ONNX_MODULES),
    "hub-folder": ("hub", "huggingface_hub"),
    "cleanrl": ("",),
    "sb3": ("sb3", "stable_baselines3"),
    "minari": ("minari", "minari", "cv2"),
}
"""What of the package's optional dependencies each target needs: the extra, and its modules."""
OPTIONS: dict[Target, tuple[str, ...]] = {
    "onnx": ("game", "int8", "dataset", "teachers"),
    "hub-folder": ("scores", "replay", "teachers", "episodes", "name"),
    "cleanrl": ("game",),
    "sb3": ("game",),
    "minari": ("name",),
}
"""What may be said of each target, beside where it goes."""
INT8_OPTIONS = {
    "dataset": "a part of the data set of the agent's teacher",
    "teachers": "whose play it is calibrated on",
}
"""What of that is for eight bits alone, in words."""


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
        int8: for ONNX: in eight bits, calibrated on recorded play.
        dataset: for int8: a part of the data set of the agent's teacher; without one some play is recorded.
        scores: for the hub: the CSV of the agent's games; by default what lies beside the agent.
        replay: for the hub: a video, such as `record` makes.
        teachers: the files of a student's teachers; for the hub, to say where those came from; for int8 without a
            dataset, to play; there, by default, the agent itself does.
        episodes: for the hub: games to play anew for its scores, a multiple of 16.
        name: for the hub: USER/REPOSITORY; for Minari: the data set's name, by default GAME/teacher-v0.
    """
    if not files:
        raise ExportError("name a file: an agent's, or parts of a data set for Minari")
    _check_options(
        to,
        {
            "game": game,
            "int8": int8,
            "dataset": dataset,
            "scores": scores,
            "replay": replay,
            "teachers": teachers,
            "episodes": episodes,
            "name": name,
        },
    )
    need(f"--to {to}", *NEEDS[to])
    if to == "minari":
        print(f"written to {_minari(files, output, name)}")
        return
    if len(files) != 1:
        raise ExportError(f"{len(files)} files; --to {to} takes one agent")
    agent, metadata = load_agent(files[0])
    protocol = read_protocol(metadata.get("protocol"), files[0])
    if to == "hub-folder":
        from .hub import check_hub, export_hub, find_scores, play_scores

        folder = output or Path("hub")
        check_hub(folder, metadata, replay, teachers, name)
        check_output(folder, folder=True)
        played = play_scores(agent, protocol.name, episodes) if episodes else find_scores(files[0], metadata, scores)
        export_hub(files[0], folder, agent, metadata, played, replay, teachers, name)
        upload = ["hf", "upload", name or "USER/REPOSITORY", str(folder)]
        print(f"written to {folder}; to publish it: {shlex.join(upload)}")
        return
    chosen = _choose(agent, game)
    if to != "onnx":
        _for_library(chosen, to, files[0], output, protocol.name)
    elif int8:
        _int8(chosen, metadata, files[0], output, dataset, teachers)
    else:
        _onnx(chosen, metadata, files[0], output)


def _check_options(to: Target, values: Mapping[str, Any]) -> None:
    """Raise ExportError for an option, by name, that is said and would do nothing."""
    said = [name for name, value in values.items() if value]
    for name in said:
        if name not in OPTIONS[to]:
            allowed = ", ".join(f"--{option}" for option in ("output", *OPTIONS[to]))
            raise ExportError(f"--{name} means nothing to --to {to}; allowed: {allowed}")
    for name, purpose in INT8_OPTIONS.items():
        if to == "onnx" and name in said and "int8" not in said:
            raise ExportError(f"--{name}, {purpose}, belongs to --int8")
    if "dataset" in said and "teachers" in said:
        raise ExportError("--teachers means nothing beside --dataset, which was played already")
    if "episodes" in said and "scores" in said:
        raise ExportError("--scores means nothing beside --episodes, which plays for new ones")


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


def _onnx(agent: Agent, metadata: dict[str, Any], file: Path, output: Path | None) -> None:
    from .onnx import export_onnx

    (game,) = agent.actions
    path = output or Path(f"{game}.onnx")
    check_output(path, [file])
    export_onnx(agent, metadata, path)
    _say_onnx(path, game)


def _int8(
    agent: Agent,
    metadata: dict[str, Any],
    file: Path,
    output: Path | None,
    dataset: Path | None,
    teachers: tuple[Path, ...],
) -> None:
    """An agent of one game in eight bits, calibrated on its teacher's play, or else on its own."""
    from .int8 import players, quantise, record_play
    from .onnx import export_onnx

    (game,) = agent.actions
    path = output or Path(f"{game}_int8.onnx")
    check_output(path, [file, *([dataset] if dataset else teachers)])
    player = _player(file, metadata, game, teachers)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "float32.onnx")
        export_onnx(agent, metadata, whole)
        if dataset is None:
            print(f"no --dataset: {player} plays a minute of eight games to calibrate on", flush=True)
            dataset = Path(folder, "part0.h5")
            record_play(player, game, metadata["protocol"]["name"], dataset)
        kept = quantise(whole, dataset, path, players(file, metadata))
    print(kept.describe())
    _say_onnx(path, game)


def _player(file: Path, metadata: dict[str, Any], game: str, teachers: tuple[Path, ...]) -> Path:
    """Whose play an agent is calibrated on: its teacher's of this game, if that is among ``teachers``; or its own."""
    if not teachers:
        return file
    known = metadata.get("teachers", {}).get(game)
    for teacher in teachers:
        if teacher.is_file() and file_digest(teacher) == known:
            return teacher
    raise ExportError(f"{', '.join(map(str, teachers))}: not the teacher of {game}, whose SHA-256 is {known}")


def _say_onnx(path: Path, game: str) -> None:
    from .deployment import describe_speed
    from .onnx import OnnxAgent

    print(describe_speed(OnnxAgent(path), game))
    _say_written(path)


def _for_library(agent: Agent, to: Target, file: Path, output: Path | None, protocol: str) -> None:
    """An agent of one game as a file of CleanRL's or Stable-Baselines3's."""
    from .libraries import export_cleanrl, export_sb3

    (game,) = agent.actions
    path = output or Path(f"{game}.{'zip' if to == 'sb3' else 'cleanrl_model'}")
    if to == "sb3" and path.suffix != ".zip":  # by which Stable-Baselines3 looks for it
        path = path.with_name(f"{path.name}.zip")
    check_output(path, [file])
    (export_sb3 if to == "sb3" else export_cleanrl)(agent, path)
    if agent.readouts[game].outputs == "logits":  # neither library writes down what outputs mean
        print(
            f"WARNING: its outputs are logits, which {to} takes for Q-values: so will whoever reads {path}; "
            f"back here say so: import {shlex.quote(str(path))} --game {game} --outputs logits --protocol {protocol}"
        )
    _say_written(path)


def _say_written(path: Path) -> None:
    print(f"written to {path}, {path.stat().st_size:,} bytes")
