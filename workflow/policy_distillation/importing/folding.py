"""From a declared network's tensors to an agent of this project, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..networks import Agent
from .containers import AgentImportError, Tensors
from .declarations import WEIGHT, Declaration, Stream

Layer = tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]
"""Weight, bias, as torch has them."""


def build_agent(
    declaration: Declaration, tensors: Tensors, game: str, action_ids: Sequence[int], order: Sequence[int]
) -> Agent:
    """The agent that gives the same outputs.

    Args:
        tensors: as :func:`refusals.check_tensors` approves them.
        action_ids: ALE ids of the agent's outputs.
        order: for each of them which of the file's actions it is.
    """
    if declaration.input_divisor is None:
        raise AgentImportError(
            "the file does not tell how its inputs were scaled: give input_divisor, 255 if the network saw "
            "pixels / 255, 1 if it saw them as they are"
        )
    layers = _dense_layers(declaration, tensors)
    weight, bias = layers.pop()
    layers.append(_output_layer(declaration, weight, bias, order))
    named = {
        f"conv{number}": _convolution(declaration, tensors, layer.key)
        for number, layer in enumerate(declaration.convolutions, start=1)
    }
    weight, bias = named["conv1"]
    if declaration.input_divisor != 255:
        weight = weight * np.float32(255.0 / declaration.input_divisor)  # our agents divide by 255
    named["conv1"] = weight, bias

    agent = Agent(declaration.network, {game: list(action_ids)}, {game: declaration.readout})
    head = f"controllers.{game}"
    outputs = [head] if isinstance(agent.controllers[game], torch.nn.Linear) else [f"{head}.0", f"{head}.2"]
    named |= dict(zip(["hidden", *outputs], layers, strict=False))
    assert len(layers) <= len(outputs) + 1
    state = {
        f"{name}.{part}": torch.from_numpy(np.array(array, np.float32, order="C"))
        for name, layer in named.items()
        for part, array in zip(("weight", "bias"), layer, strict=True)
    }
    unloaded = agent.load_state_dict(state, strict=False)
    assert not unloaded.unexpected_keys, unloaded
    assert set(unloaded.missing_keys) == {"shift", "scale"}, unloaded  # the defaults
    return agent.eval()


def _convolution(declaration: Declaration, tensors: Tensors, key: str) -> Layer:
    weight = tensors[f"{key}.{WEIGHT[declaration.layout]}"]
    return (weight.transpose(3, 2, 0, 1) if declaration.layout == "flax" else weight), tensors[f"{key}.bias"]


def _dense(declaration: Declaration, tensors: Tensors, key: str, after_image: bool) -> Layer:
    weight = tensors[f"{key}.{WEIGHT[declaration.layout]}"]
    if declaration.layout == "torch":
        return weight, tensors[f"{key}.bias"]
    if after_image:
        side, channels = declaration.network.sides[-1], declaration.network.channels[-1]
        weight = weight.reshape(side, side, channels, -1).transpose(2, 0, 1, 3).reshape(weight.shape)
    return weight.T, tensors[f"{key}.bias"]


def _dense_layers(declaration: Declaration, tensors: Tensors) -> list[Layer]:
    """Hidden layers and the output layer; streams side by side."""
    layers = [_dense(declaration, tensors, layer.key, number == 0) for number, layer in enumerate(declaration.hidden)]
    if not (declaration.value and declaration.advantage):
        assert declaration.output is not None
        return [*layers, _dense(declaration, tensors, declaration.output, False)]
    ends = (*declaration.value.hidden, *declaration.advantage.hidden)
    hidden = [_dense(declaration, tensors, layer.key, not layers) for layer in ends]
    if hidden:
        layers.append((np.concatenate([w for w, _ in hidden]), np.concatenate([b for _, b in hidden])))
    units = len(layers[-1][1])
    first = declaration.value.hidden[0].units if hidden else 0
    columns = [(0, first), (first, units)] if hidden else [(0, units), (0, units)]
    streams = []
    for stream, reads in zip((declaration.value, declaration.advantage), columns, strict=True):
        streams.append(_widened(stream, _dense(declaration, tensors, stream.output, False), reads, units))
    return [*layers, _duel(*streams)]


def _widened(stream: Stream, layer: Layer, reads: tuple[int, int], units: int) -> Layer:
    """A stream's output layer over all units, with zeros for those that it does not read; in float64."""
    start, stop = stream.reads or reads
    weight = np.zeros((len(layer[0]), units))
    weight[:, start:stop] = layer[0]
    return weight, layer[1].astype(np.float64)


def _duel(value: Layer, advantage: Layer) -> Layer:
    """Output layer of V + A - mean over actions of A, atom by atom where there are atoms."""
    atoms = len(value[1])
    folded = []
    for v, a in zip(value, advantage, strict=True):
        a = a.reshape(-1, atoms, *a.shape[1:])
        folded.append((v + a - a.mean(0)).reshape(-1, *a.shape[2:]).astype(np.float32))
    return folded[0], folded[1]


def _output_layer(
    declaration: Declaration,
    weight: NDArray[np.floating[Any]],
    bias: NDArray[np.floating[Any]],
    order: Sequence[int],
) -> Layer:
    """Its rows in the order of the agent's actions; of quantiles their mean."""
    rows, width = [], declaration.head.width
    for array in (weight, bias):
        if declaration.head.order == "quantile_major":
            by_action = np.moveaxis(array.reshape(width, -1, *array.shape[1:]), 1, 0)
        else:
            by_action = array.reshape(-1, width, *array.shape[1:])
        chosen = by_action[list(order)]
        if declaration.head.kind == "quantiles":
            rows.append(chosen.mean(1, dtype=np.float64).astype(np.float32))
        else:
            rows.append(chosen.reshape(-1, *array.shape[1:]))
    return rows[0], rows[1]
