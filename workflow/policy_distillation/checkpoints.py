"""Agents on disk: safetensors, nothing is ever unpickled."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from .files import atomic_path, strict_json
from .header import FORMAT, KEY, CheckpointError, read_metadata, weights_digest
from .networks import Agent, Network
from .readouts import MOST_ACTIONS, Readout

LARGEST_LAYER = 65_536
"""Units that a file may ask for in one layer; beyond it the file is taken for damaged."""
MOST_LAYERS = 16
"""Convolutions that a file may ask for."""


def save_agent(path: Path, agent: Agent, metadata: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> None:
    """Write an agent with its input scaling folded to x/255.

    Args:
        metadata: anything that JSON can hold: protocol, settings, seed, steps, provenance.
        dtype: float32, or float16 for half the size; whoever loads it gets float32.
    """
    header: dict[str, Any] = {
        **metadata,
        "format": FORMAT,
        "network": asdict(agent.network),
        "actions": {game: list(ids) for game, ids in agent.actions.items()},
        "readouts": {game: readout.to_json() for game, readout in agent.readouts.items()},
    }
    folded = copy.deepcopy(agent).cpu()
    folded.fold_input_scaling()
    tensors = {name: parameter.detach().to(dtype).contiguous() for name, parameter in folded.named_parameters()}
    header["digest"] = weights_digest({name: tensor.numpy() for name, tensor in tensors.items()})
    with atomic_path(path) as temporary:
        # Not save_file, which makes files that only their owner may read.
        temporary.write_bytes(safetensors.torch.save(tensors, {KEY: strict_json(header, sort_keys=True)}))


def load_agent(path: Path | str, device: torch.device | str = "cpu") -> tuple[Agent, dict[str, Any]]:
    """The agent in a file, in evaluation mode, and its metadata. Raises CheckpointError."""
    metadata = read_metadata(path)
    try:
        network = Network(**metadata["network"])
        actions = {str(game): [int(action) for action in ids] for game, ids in metadata["actions"].items()}
        widths = [*network.channels, network.hidden, *([network.controller] if network.controller else [])]
        widths += [*network.kernels, *network.strides]
        fit = all(isinstance(width, int) and 0 < width <= LARGEST_LAYER for width in widths)
        if not fit or len(network.channels) > MOST_LAYERS:
            raise ValueError(f"impossible layer sizes {widths[:20]}")
        if network.padding not in ("valid", "same"):
            raise ValueError(f"unknown padding {network.padding!r}")
        for name in ("settings", "teachers"):  # what others read of it
            if not isinstance(metadata.get(name, {}), dict):
                raise TypeError(f"{name} cannot be {str(metadata[name])[:100]!r}")
        if not actions or not all(0 < len(ids) <= MOST_ACTIONS for ids in actions.values()):
            raise ValueError(f"every game needs 1 to {MOST_ACTIONS} actions")
        readouts = _readouts(metadata.get("readouts", {}), actions)
        with safetensors.safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            types = {part.get_dtype() for part in slices.values()}
        with torch.device("meta"):  # compare shapes before any memory is asked for
            expected = {
                name: tuple(tensor.shape) for name, tensor in Agent(network, actions, readouts).named_parameters()
            }
        if shapes != expected:
            wrong = sorted(set(shapes.items()) ^ set(expected.items()))[0]
            raise ValueError(f"tensor {wrong[0]!r} {wrong[1]} does not fit the declared network")
        if not types <= {"F32", "F16"}:
            raise ValueError(f"tensors of type {', '.join(sorted(types))}; allowed: F32, F16")
        tensors = safetensors.torch.load_file(path)
        if weights_digest({name: tensor.numpy() for name, tensor in tensors.items()}) != metadata["digest"]:
            raise ValueError("its weights are not those that were saved")
        agent = Agent(network, actions, readouts)
        agent.load_state_dict(tensors, strict=False)  # all its parameters; inputs are scaled by 1/255, the default
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {str(error)[:200]!r})") from None
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return agent.to(device).eval(), metadata


def _readouts(content: Mapping[str, Any], actions: Mapping[str, Any]) -> dict[str, Readout]:
    """What a file says of its outputs; older files say nothing and hold Q-values."""
    if not set(content) <= set(actions):
        raise ValueError("readouts of games that it does not play")
    return {game: Readout.from_json(readout) for game, readout in content.items()}


def load_initial_agent(path: Path, agent: Agent) -> None:
    """Give a new agent the weights of the one in a file, to learn on from there. Raises CheckpointError."""
    initial, _ = load_agent(path)
    for name in ("network", "actions", "readouts"):
        have, need = getattr(initial, name), getattr(agent, name)
        if have != need:
            raise CheckpointError(f"{path}: its {name} {have} cannot be trained further as {need}")
    agent.load_state_dict(initial.state_dict())
