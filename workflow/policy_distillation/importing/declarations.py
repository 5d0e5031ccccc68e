"""How a network lies in a file: which tensor is which layer, and what its outputs mean.

A declaration names the layers of a network: convolutions, one or two hidden layers, outputs, ReLU between them. What is
not of that kind cannot be imported. A duelling network is of that kind: its streams, side by side, are one hidden
layer, and Q = V + A - mean(A) is linear in them (Wang et al. 2016, equation 9). So are quantiles, whose mean is linear
in them, and noisy layers without their noise. What is left of C51 is its last step, which
:class:`~policy_distillation.networks.Categorical` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from ..atari import STACK
from ..networks import Network, Padding
from ..readouts import Acting, Outputs, Readout, Support
from .containers import AgentImportError, Tensors

DIVISORS = (1e-6, 1e6)
"""The smallest and the largest that weights of 32 bits bear."""
WEIGHT = {"torch": "weight", "flax": "kernel"}
"""What each layout calls a layer's matrix."""
USUAL_ATOMS, USUAL_QUANTILES = 51, 200
"""Of Bellemare et al. 2017 and Dabney et al. 2018; nearly everybody took them over."""


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
    reads: tuple[int, int] | None = None
    """The units of the layer before that it reads, from and up to; None: all of them."""


@dataclass(frozen=True)
class Head:
    """What the rows of an output layer are."""

    kind: Literal["plain", "quantiles", "categorical"] = "plain"
    """``plain``: a row an action. ``quantiles``: some rows an action, whose mean is its value. ``categorical``: an
    action's rows are logits over the values of a support."""
    order: Literal["action_major", "quantile_major"] = "action_major"
    """Whether rows beside each other belong to one action or to one quantile."""
    support: Support | None = None
    """Of ``categorical``, where the file does not hold it; None: it always does."""
    support_key: str | None = None
    """The tensor that holds the support, where the file has one."""
    support_settings: str | None = None
    """Beginning of the names of plain values ``v_min``, ``v_max`` and ``n_atoms``, where the file has those."""
    quantiles: int = USUAL_QUANTILES
    """An action's, of ``quantiles``, where the file does not say."""
    quantiles_key: str | None = None
    """A tensor with a number for each quantile, where the file has one."""
    quantiles_fact: str | None = None
    """The fact in :class:`~.containers.Content` that says how many there are, where the file does."""
    stated: bool = False
    """Whether support or quantiles are the file's own; see :func:`recognition.resolve_head`."""

    @property
    def width(self) -> int:
        """Rows an action."""
        if self.kind == "plain":
            return 1
        if self.kind == "quantiles":
            return self.quantiles
        return self.support.atoms if self.support else USUAL_ATOMS

    @property
    def unit(self) -> str:
        """What an action's rows are."""
        return {"plain": "rows", "quantiles": "quantiles", "categorical": "atoms"}[self.kind]


@dataclass(frozen=True)
class Declaration:
    """A network as it lies in a file. Inputs are (4, 84, 84), the oldest frame first."""

    convolutions: tuple[Convolution, ...]
    hidden: tuple[Dense, ...]
    output: str | None = None
    """Key of the output layer; None: a duelling network, with ``value`` and ``advantage``."""
    value: Stream | None = None
    advantage: Stream | None = None
    head: Head = Head()
    outputs: Outputs = "q_values"
    acting: Acting = "epsilon_greedy"
    layout: Literal["torch", "flax"] = "torch"
    """``torch``: filters (out, in, height, width), weights (out, in), images flattened as channels, rows, columns.
    ``flax``: filters (height, width, in, out), weights (in, out), images flattened as rows, columns, channels."""
    padding: Padding = "valid"
    input_divisor: float | None = 255.0
    """Pixels, 0 to 255, are divided by this before the first layer; None: the file does not tell."""
    ignore: tuple[str, ...] = ()
    """Beginnings of, or patterns (``*``, ``?``, ``[]``) for, keys that belong to no layer: targets, optimisers."""
    kind: str = "DQN"
    """What people call such an agent."""
    notes: tuple[str, ...] = ()
    """What was assumed and should be known."""

    def __post_init__(self) -> None:
        plain, duelling = self.output is not None, self.value is not None and self.advantage is not None
        if plain == duelling or (plain and (self.value or self.advantage)):
            raise AgentImportError("a network needs either `output` or both `value` and `advantage`")
        streams = (self.value.hidden, self.advantage.hidden) if self.value and self.advantage else ((), ())
        if len(streams[0]) != len(streams[1]) or len(streams[0]) > 1:
            raise AgentImportError("`value` and `advantage` need the same number of hidden layers, none or one")
        if not 1 <= len(self.hidden) + len(streams[0]) <= 2:
            raise AgentImportError("a network needs one or two hidden layers after its convolutions")
        if self.outputs == "logits" and self.head.kind != "plain":
            raise AgentImportError(
                f"outputs: logits do not go with readout: {{kind: {self.head.kind}}}, which gives values"
            )
        if duelling and self.head.kind == "quantiles":
            raise AgentImportError("quantiles of a duelling network cannot be read")
        for name, stream in (("value", self.value), ("advantage", self.advantage)):
            if stream and stream.reads:
                self._check_reads(name, stream, stream.reads)
        lowest, highest = DIVISORS
        if self.input_divisor is not None and not lowest <= self.input_divisor <= highest:
            raise AgentImportError(f"input_divisor {self.input_divisor:g}; allowed: {lowest:g} to {highest:g}")
        Readout(self.outputs, self.acting)  # raises ValueError

    def _check_reads(self, name: str, stream: Stream, reads: tuple[int, int]) -> None:
        """A stream without a hidden layer of its own may read a part of the one before it."""
        if stream.hidden:
            raise AgentImportError(
                f"`{name}`: `reads` is for a stream without `hidden`, which reads all units before it"
            )
        units = self.hidden[-1].units
        if not 0 <= reads[0] < reads[1] <= units:
            raise AgentImportError(f"`{name}`: reads {list(reads)} of {units} units; allowed: from 0, up to {units}")

    @property
    def readout(self) -> Readout:
        """What the agent's outputs are."""
        return Readout(self.outputs, self.acting, self.head.support if self.head.kind == "categorical" else None)

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
        network, flax, width = self.network, self.layout == "flax", self.head.width
        shapes: dict[str, tuple[int, ...]] = {}
        inputs = STACK
        for layer in self.convolutions:
            size = (layer.kernel, layer.kernel)
            shapes[f"{layer.key}.{WEIGHT[self.layout]}"] = (
                (*size, inputs, layer.filters) if flax else (layer.filters, inputs, *size)
            )
            shapes[f"{layer.key}.bias"] = (layer.filters,)
            inputs = layer.filters

        def dense(key: str, inputs: int, units: int) -> int:
            shapes[f"{key}.{WEIGHT[self.layout]}"] = (inputs, units) if flax else (units, inputs)
            shapes[f"{key}.bias"] = (units,)
            return units

        inputs *= network.sides[-1] ** 2
        for hidden in self.hidden:
            inputs = dense(hidden.key, inputs, hidden.units)
        if self.output is not None:
            dense(self.output, inputs, actions * width)
        for stream, outputs in ((self.value, width), (self.advantage, actions * width)):
            if stream:
                units = inputs if stream.reads is None else stream.reads[1] - stream.reads[0]
                for hidden in stream.hidden:
                    units = dense(hidden.key, units, hidden.units)
                dense(stream.output, units, outputs)
        return shapes

    def rows(self, tensors: Tensors) -> int | None:
        """Rows of the file's output layer; None where it is missing."""
        key = self.output if self.output is not None else self.advantage and self.advantage.output
        bias = tensors.get(f"{key}.bias")
        return None if bias is None else int(bias.size)

    def ignores(self, name: str) -> bool:
        """Whether a tensor of this name may lie in the file without belonging to the network."""
        patterns = (*self.ignore, *([self.head.support_key] if self.head.support_key else []))
        return any(fnmatchcase(name, p) if set(p) & set("*?[") else name.startswith(p) for p in patterns)
