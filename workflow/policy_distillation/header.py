"""What an agent's file says of itself, and whether its weights are those that were saved.

Imports nothing heavy: the workflow checks its teachers' files before anything runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from numpy.typing import NDArray

from .protocols import PROTOCOLS

FORMAT = "policy_distillation.agent/1"
KEY = "policy_distillation"


class CheckpointError(ValueError):
    """A file that is no agent of ours: truncated, altered or foreign. The message is one line for the user."""


def weights_digest(weights: Mapping[str, NDArray[Any]]) -> str:
    """A file's ``digest``: SHA-256 of the tensors, in the order of their names, in hex."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].tobytes())
    return digest.hexdigest()


def read_metadata(path: Path | str) -> dict[str, Any]:
    """What an agent's file says about itself, without loading its weights."""
    try:
        with safetensors.safe_open(path, "np") as file:
            text = (file.metadata() or {}).get(KEY)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (safetensors.SafetensorError, OSError) as error:
        if Path(path).is_dir():
            raise CheckpointError(f"{path}: a folder; name the agent.safetensors in it") from None
        if Path(path).suffix == ".onnx":
            raise CheckpointError(
                f"{path}: an ONNX file, which only `evaluate` and `inspect` read; name the .safetensors that it was "
                "made of"
            ) from None
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from None
    if text is None:
        raise CheckpointError(f"{path}: a safetensors file, but not an agent of this project")
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path}: its metadata is not JSON") from None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: its format is not {FORMAT}")
    return metadata


def protocol_name(metadata: Mapping[str, Any], path: Path | str) -> str:
    """How the emulator was driven for the agent in a file. Raises CheckpointError where its metadata does not say."""
    made = metadata.get("protocol")
    name = made.get("name") if isinstance(made, dict) else None
    if name not in PROTOCOLS:
        raise CheckpointError(f"{path}: its protocol is {name!r}; allowed: {', '.join(PROTOCOLS)}")
    return str(name)


def check_weights(path: Path | str, metadata: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless a file's tensors are those that were saved, without building a network."""
    try:
        with safetensors.safe_open(path, "np") as file:
            weights = weights_digest({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, TypeError, ValueError) as error:  # types that numpy has not
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error})") from None
    if metadata.get("digest") != weights:
        raise CheckpointError(f"{path}: altered since it was written: its weights are not those that were saved")
