"""Teachers that need no training: the reference agents in resources/teachers, and agents in files of the user's.

Imports nothing heavy: the workflow checks them before anything runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors

from .files import file_digest

REFERENCE = Path("resources/teachers")
"""Below the project's root: {game}/agent.safetensors, its progress.csv and scores.csv; and SHA256SUMS over them all."""


class SourceError(ValueError):
    """A teacher that cannot be used. The message is one line for the user."""


def source_path(game: str, source: str) -> Path:
    """The file that a game's teacher is taken from; ``source`` is ``reference`` or a path."""
    return REFERENCE / game / "agent.safetensors" if source == "reference" else Path(source)


def check_source(game: str, source: str, protocol: str) -> None:
    """Raise SourceError unless a game's teacher is to be trained, or its file is whole and plays the game."""
    if source == "train":
        return
    path = source_path(game, source)
    key = f"teacher.source: {source}" if source == "reference" else "teacher.source"
    if not path.is_file():
        have = ", ".join(sorted(folder.parent.name for folder in REFERENCE.glob("*/agent.safetensors"))) or "none"
        raise SourceError(f"{key}: {path} does not exist; reference teachers here: {have}; or use `train` or a path")
    if source == "reference" and f"{file_digest(path)}  {game}/agent.safetensors" not in _digests():
        raise SourceError(f"{key}: {path} is not the file that {REFERENCE}/SHA256SUMS names; restore it from git")
    metadata = _metadata(path, key)
    plays = sorted(metadata.get("actions", {}))
    if game not in plays:
        raise SourceError(f"{key}: {path} does not play {game}; it plays {', '.join(plays) or 'nothing'}")
    name = metadata.get("protocol", {}).get("name")
    if name != protocol:
        raise SourceError(f"{key}: {path} was made under the protocol {name}, but protocol is {protocol}")


def check_actions(game: str, source: str, protocol: str) -> None:
    """Raise SourceError unless the teacher's actions are those that the emulator has. Starts an emulator."""
    if source == "train":
        return
    from .atari import PROTOCOLS, action_ids

    path = source_path(game, source)
    have, need = _metadata(path, "teacher.source")["actions"][game], action_ids(game, PROTOCOLS[protocol])
    if have != need:
        raise SourceError(f"teacher.source: {path} has the actions {have} for {game}, the emulator {need}")


def _digests() -> list[str]:
    return (REFERENCE / "SHA256SUMS").read_text().splitlines()


def _metadata(path: Path, key: str) -> dict[str, Any]:
    """An agent's own description. The whole agent is verified by the job that takes it over."""
    try:
        with safetensors.safe_open(path, "np") as file:
            metadata = json.loads((file.metadata() or {})["policy_distillation"])
    except (safetensors.SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise SourceError(f"{key}: {path} is not an agent of this project ({type(error).__name__})") from None
    if not isinstance(metadata, dict):
        raise SourceError(f"{key}: {path} is not an agent of this project")
    return metadata
