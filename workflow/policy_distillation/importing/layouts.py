"""How a Q-network lies in a file, and how its tensors become an agent of this project.

A declaration names the layers of a network: convolutions, one or two hidden layers, one output an action, ReLU between
them. What is not of that kind cannot be imported. A duelling network is of that kind: its streams, side by side, are
one hidden layer, and Q = V + A - mean(A) is linear in them (Wang et al. 2016, equation 9), so it folds into the weights
of one output layer, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jsonschema
import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from ..atari import STACK
from ..config import schema_refusal
from ..networks import Agent, Network, Padding
from .containers import AgentImportError, Tensors

SCHEMA = Path(__file__).resolve().parents[1] / "schemas" / "mapping.schema.yaml"
LISTED = 12
"""Lines of each kind in a report."""
Layer = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Weight, bias, as torch has them."""


@dataclass(frozen=True)
class Convolution:
    key: str
    """What the layer's tensors are called, without ``.weight`` and ``.bias``."""
    filters: int
    kernel: int
    """Height and width of a filter."""
    stride: int


@dataclass(frozen=True)
class Dense:
    key: str
    units: int


@dataclass(frozen=True)
class Stream:
    """One of the two ends of a duelling network."""

    output: str
    """Key of the output layer."""
    hidden: tuple[Dense, ...] = ()


@dataclass(frozen=True)
class Declaration:
    """A Q-network as it lies in a file. Inputs are (4, 84, 84), the oldest frame first."""

    convolutions: tuple[Convolution, ...]
    hidden: tuple[Dense, ...]
    output: str | None = None
    """Key of the output layer; None: a duelling network, with ``value`` and ``advantage``."""
    value: Stream | None = None
    advantage: Stream | None = None
    layout: Literal["torch", "flax"] = "torch"
    """``torch``: filters (out, in, height, width), weights (out, in), images flattened as channels, rows, columns.
    ``flax``: filters (height, width, in, out), weights (in, out), images flattened as rows, columns, channels."""
    padding: Padding = "valid"
    input_divisor: float | None = 255.0
    """Pixels, 0 to 255, are divided by this before the first layer; None: the file does not tell."""
    ignore: tuple[str, ...] = ()
    """Beginnings of the keys that belong to no layer: target networks, optimisers."""

    def __post_init__(self) -> None:
        plain, duelling = self.output is not None, self.value is not None and self.advantage is not None
        if plain == duelling or (plain and (self.value or self.advantage)):
            raise AgentImportError("a network needs either `output` or both `value` and `advantage`")
        streams = (self.value.hidden, self.advantage.hidden) if self.value and self.advantage else ((), ())
        if len(streams[0]) != len(streams[1]) or len(streams[0]) > 1:
            raise AgentImportError("`value` and `advantage` need the same number of hidden layers, none or one")
        if not 1 <= len(self.hidden) + len(streams[0]) <= 2:
            raise AgentImportError("a network needs one or two hidden layers after its convolutions")

    @property
    def network(self) -> Network:
        """The size of the agent; streams lie side by side in its last hidden layer."""
        units = [layer.units for layer in self.hidden]
        if self.value and self.advantage and self.value.hidden:
            units.append(self.value.hidden[0].units + self.advantage.hidden[0].units)
        return Network(
            channels=tuple(layer.filters for layer in self.convolutions),
            hidden=units[0],
            controller=units[1] if len(units) > 1 else None,
            kernels=tuple(layer.kernel for layer in self.convolutions),
            strides=tuple(layer.stride for layer in self.convolutions),
            padding=self.padding,
        )

    def shapes(self, actions: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor that the file must hold."""
        network, flax = self.network, self.layout == "flax"
        shapes: dict[str, tuple[int, ...]] = {}
        inputs = STACK
        for layer in self.convolutions:
            size = (layer.kernel, layer.kernel)
            shapes[f"{layer.key}.{_WEIGHT[self.layout]}"] = (
                (*size, inputs, layer.filters) if flax else (layer.filters, inputs, *size)
            )
            shapes[f"{layer.key}.bias"] = (layer.filters,)
            inputs = layer.filters

        def dense(key: str, inputs: int, units: int) -> int:
            shapes[f"{key}.{_WEIGHT[self.layout]}"] = (inputs, units) if flax else (units, inputs)
            shapes[f"{key}.bias"] = (units,)
            return units

        inputs *= network.sides[-1] ** 2
        for hidden in self.hidden:
            inputs = dense(hidden.key, inputs, hidden.units)
        if self.output is not None:
            dense(self.output, inputs, actions)
        for stream, outputs in ((self.value, 1), (self.advantage, actions)):
            if stream:
                units = inputs
                for hidden in stream.hidden:
                    units = dense(hidden.key, units, hidden.units)
                dense(stream.output, units, outputs)
        return shapes

    def outputs(self, tensors: Tensors) -> int | None:
        """How many actions the network in the file has; None where its output layer is missing."""
        key = self.output if self.output is not None else self.advantage and self.advantage.output
        bias = tensors.get(f"{key}.bias")
        return None if bias is None else int(bias.size)


_WEIGHT = {"torch": "weight", "flax": "kernel"}


def read_declaration(path: Path) -> tuple[Declaration, list[int] | None]:
    """A mapping in YAML: the network, and the ALE ids of its outputs where the file says so. Raises AgentImportError.

    ``schemas/mapping.schema.yaml`` describes it.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise AgentImportError(f"{path}: unreadable ({type(error).__name__})") from None
    schema = jsonschema.Draft202012Validator(yaml.safe_load(SCHEMA.read_text()))
    refused = jsonschema.exceptions.best_match(schema.iter_errors(content))
    if refused is not None:
        raise AgentImportError(f"{path}: {schema_refusal(refused, 'mapping')}")

    def stream(entry: Mapping[str, Any] | None) -> Stream | None:
        if entry is None:
            return None
        return Stream(entry["output"], tuple(Dense(**layer) for layer in entry.get("hidden", ())))

    actions = content.pop("actions", None)
    try:
        declaration = Declaration(
            **{
                **content,
                "convolutions": tuple(Convolution(**layer) for layer in content["convolutions"]),
                "hidden": tuple(Dense(**layer) for layer in content["hidden"]),
                "value": stream(content.get("value")),
                "advantage": stream(content.get("advantage")),
                "ignore": tuple(content.get("ignore", ())),
            }
        )
        declaration.network  # noqa: B018 (do the convolutions fit the image?)
    except ValueError as error:
        raise AgentImportError(f"{path}: {error}") from None
    return declaration, actions


def check_tensors(declaration: Declaration, tensors: Tensors, actions: int) -> None:
    """Raise AgentImportError with a report unless a file holds exactly the declared network, in finite numbers."""
    expected = declaration.shapes(actions)
    found = {name: tensor.shape for name, tensor in tensors.items() if not name.startswith(declaration.ignore)}
    missing = [f"{name} {shape}" for name, shape in expected.items() if name not in tensors]
    extra = [f"{name} {shape}" for name, shape in found.items() if name not in expected]
    wrong = [
        f"{name} is {tensors[name].shape}, declared {shape}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    broken = [name for name in expected if name in tensors and not np.isfinite(tensors[name]).all()]
    problems = {"missing": missing, "extra": extra, "of the wrong shape": wrong, "not finite": broken}
    lines = [
        f"  {kind}: {line}"
        for kind, names in problems.items()
        for line in [*sorted(names)[:LISTED], *([f"and {len(names) - LISTED} more"] if len(names) > LISTED else [])]
    ]
    if lines:
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in problems.items() if names)
        raise AgentImportError("\n".join([f"the tensors do not fit the network ({counts}):", *lines]))


def build_agent(
    declaration: Declaration, tensors: Tensors, game: str, action_ids: Sequence[int], order: Sequence[int]
) -> Agent:
    """The agent that gives the same Q-values.

    Args:
        tensors: as :func:`check_tensors` approves them.
        action_ids: ALE ids of the agent's outputs.
        order: for each of them the row of the file's output layer.
    """
    if declaration.input_divisor is None:
        raise AgentImportError(
            "the file does not tell how its inputs were scaled: give input_divisor, 255 if the network saw "
            "pixels / 255, 1 if it saw them as they are"
        )
    network, flax = declaration.network, declaration.layout == "flax"

    def convolution(key: str) -> Layer:
        weight = tensors[f"{key}.{_WEIGHT[declaration.layout]}"]
        return (weight.transpose(3, 2, 0, 1) if flax else weight), tensors[f"{key}.bias"]

    def dense(key: str, after_image: bool) -> Layer:
        weight = tensors[f"{key}.{_WEIGHT[declaration.layout]}"]
        if flax and after_image:
            side = network.sides[-1]
            weight = weight.reshape(side, side, network.channels[-1], -1).transpose(2, 0, 1, 3).reshape(weight.shape)
        return (weight.T if flax else weight), tensors[f"{key}.bias"]

    layers = [dense(layer.key, number == 0) for number, layer in enumerate(declaration.hidden)]
    if declaration.value and declaration.advantage:
        value = dense(declaration.value.output, False)
        advantage = dense(declaration.advantage.output, False)
        ends = (*declaration.value.hidden, *declaration.advantage.hidden)
        streams = [dense(layer.key, not layers) for layer in ends]
        if streams:
            layers.append((np.concatenate([w for w, _ in streams]), np.concatenate([b for _, b in streams])))
        layers.append(_duel(value, advantage, side_by_side=bool(streams)))
    else:
        assert declaration.output is not None
        layers.append(dense(declaration.output, False))
    weight, bias = layers[-1]
    layers[-1] = weight[list(order)], bias[list(order)]

    names = ["hidden", *([f"controllers.{game}"] if len(layers) == 2 else [f"controllers.{game}.{n}" for n in (0, 2)])]
    named = {f"conv{number}": convolution(layer.key) for number, layer in enumerate(declaration.convolutions, start=1)}
    weight, bias = named["conv1"]
    if declaration.input_divisor != 255:
        weight = weight * np.float32(255.0 / declaration.input_divisor)  # our agents divide by 255
    named |= {"conv1": (weight, bias), **dict(zip(names, layers, strict=True))}
    agent = Agent(network, {game: list(action_ids)})
    state = {
        f"{name}.{part}": torch.from_numpy(np.array(array, np.float32, order="C"))
        for name, layer in named.items()
        for part, array in zip(("weight", "bias"), layer, strict=True)
    }
    unloaded = agent.load_state_dict(state, strict=False)
    assert not unloaded.unexpected_keys, unloaded
    assert set(unloaded.missing_keys) == {"shift", "scale"}, unloaded  # the defaults
    return agent.eval()


def _duel(value: Layer, advantage: Layer, side_by_side: bool) -> Layer:
    """Output layer of V + A - mean(A), over both streams' units or, where there are none, over what both read."""
    weight_v, bias_v = (array.astype(np.float64) for array in value)
    weight_a, bias_a = (array.astype(np.float64) - array.astype(np.float64).mean(0) for array in advantage)
    weight_v = np.repeat(weight_v, len(weight_a), axis=0)
    weight = np.concatenate([weight_v, weight_a], axis=1) if side_by_side else weight_v + weight_a
    return weight.astype(np.float32), (bias_v + bias_a).astype(np.float32)
