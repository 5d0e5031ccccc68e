"""Networks: one kind of agent, a convolutional trunk with one controller per game.

A DQN teacher is an agent with one game, a multi-task student one with ten. Sizes follow table 4 of the paper's
appendix; their parameter counts are tested to the digit. Teachers from elsewhere may have other convolutions.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from .acting import EPSILON, choose
from .atari import SIDE, STACK
from .readouts import Readout, Support

Precision = Literal["float32", "bfloat16"]
Padding = Literal["valid", "same"]


@dataclass(frozen=True)
class Network:
    """The size of an agent."""

    channels: tuple[int, ...]
    """Filters of each convolution; three in the paper's networks."""
    hidden: int
    """Units of the shared fully connected layer."""
    controller: int | None = None
    """Units of each game's own hidden layer; None: a game owns its output layer alone."""
    layer_norm: bool = False
    """Normalise each layer's activations, over channels and positions, before its ReLU (PQN needs it)."""
    kernels: tuple[int, ...] = (8, 4, 3)
    """Height and width of each convolution's filters."""
    strides: tuple[int, ...] = (4, 2, 1)
    padding: Padding = "valid"
    """``valid``: none. ``same``: zeros, so that a layer's output has ceil(input / stride) rows, as in TensorFlow and
    JAX; where their number is odd, the bottom and the right get one more. Dopamine's networks do this."""

    def __post_init__(self) -> None:
        for name in ("channels", "kernels", "strides"):  # YAML and JSON have lists alone
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not len(self.channels) == len(self.kernels) == len(self.strides) > 0:
            raise ValueError(f"{len(self.channels)} convolutions need as many kernels and strides")
        if self.sides[-1] < 1:
            raise ValueError(f"convolutions of {self.kernels} by {self.strides} leave nothing of {SIDE} pixels")

    @property
    def sides(self) -> tuple[int, ...]:
        """Height and width of the observation and of each convolution's output: (84, 20, 9, 7) in the paper."""
        sides = [SIDE]
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            kept = sides[-1] + stride - 1 if self.padding == "same" else sides[-1] - kernel + stride
            sides.append(kept // stride)
        return tuple(sides)


class Agent(nn.Module):
    """Observations in, one Q-value (or logit) per action of the chosen game out.

    Args:
        network: the size.
        actions: for each game the ALE ids of its actions, in the order of the outputs.
        readouts: what a game's outputs are and how the agent acts on them; Q-values, epsilon-greedy, for games that it
            does not name.

    Inputs are raw bytes. They are shifted and scaled inside the first convolution, ``(x - shift) * scale``, by changing
    its weights: exact, because that convolution is not padded, and free, because no pixel is touched. Saved agents
    always have ``shift = 0, scale = 1/255``; :meth:`fold_input_scaling` brings any other scaling to that form. A padded
    convolution can be scaled but not shifted.
    """

    conv1: nn.Conv2d
    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        network: Network,
        actions: Mapping[str, Sequence[int]],
        readouts: Mapping[str, Readout] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.actions = {game: tuple(ids) for game, ids in actions.items()}
        self.readouts = {game: (readouts or {}).get(game, Readout()) for game in self.actions}
        shapes = zip((STACK, *network.channels), network.channels, network.kernels, network.strides, strict=False)
        for layer, (inputs, outputs, kernel, stride) in enumerate(shapes, start=1):
            self.add_module(f"conv{layer}", nn.Conv2d(inputs, outputs, kernel, stride))
        self.hidden = nn.Linear(network.channels[-1] * network.sides[-1] ** 2, network.hidden)
        # One group is layer norm over all of an image's activations; the kernel keeps the channels-last layout.
        widths = (*network.channels, network.hidden) if network.layer_norm else ()
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for width in widths)
        self.controllers = nn.ModuleDict(
            {game: _controller(network, len(ids), self.readouts[game]) for game, ids in self.actions.items()}
        )
        self.register_buffer("shift", torch.tensor(0.0))
        self.register_buffer("scale", torch.tensor(1.0 / 255.0))
        self.rng = np.random.default_rng(0)
        """Draws what :meth:`predict` does at random; put another in its place for other games."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, observations: Tensor, game: str, precision: Precision = "float32") -> Tensor:
        """Q-values or logits, float32 (batch, actions of the game), for uint8 observations (batch, 4, 84, 84).

        The trunk runs in ``precision``; the controller always in float32: the losses divide Q-values by a temperature
        of 0.01, which is more than bfloat16 can resolve.
        """
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        device = self.conv1.weight.device
        x = _channels_innermost(observations.to(device, non_blocking=True)).to(dtype)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            x = self._activate(0, F.conv2d(self._pad(0, x), *self._scaled_first_layer(), stride=self.conv1.stride))
            for layer in range(1, len(self.network.channels)):
                x = self._activate(layer, self.get_submodule(f"conv{layer + 1}")(self._pad(layer, x)))
            if x.requires_grad:  # flattening hands back gradients channels-first; ReLU's kernel is slow on a mixture
                x.register_hook(_channels_last)  # type: ignore[no-untyped-call]
            x = self._activate(-1, self.hidden(x.flatten(1)))
        q_values: Tensor = self.controllers[game](x.float())
        return q_values

    def _activate(self, layer: int, x: Tensor) -> Tensor:
        # In place: what convolutions and norms need for their gradients is their input.
        return F.relu(self.norms[layer](x) if self.network.layer_norm else x, inplace=True)

    def _pad(self, layer: int, x: Tensor) -> Tensor:
        network = self.network
        if network.padding == "valid":
            return x
        side, outputs = network.sides[layer : layer + 2]
        zeros = max(0, (outputs - 1) * network.strides[layer] + network.kernels[layer] - side)
        before, after = zeros // 2, zeros - zeros // 2
        return F.pad(x, (before, after, before, after))

    def _scaled_first_layer(self) -> tuple[Tensor, Tensor]:
        """Weight and bias with ``conv(x, weight, bias) == conv1((x - shift) * scale)``."""
        weight = self.conv1.weight * self.scale
        assert self.conv1.bias is not None
        return weight, self.conv1.bias - self.shift * weight.sum((1, 2, 3))

    def standardise_inputs(self, moments: Sequence[tuple[float, float]], keep_outputs: bool = False) -> None:
        """Shift and scale inputs to mean 0 and deviation 1, given (mean, mean square) of the pixels of each game.

        Games share one mean and scale. With ``keep_outputs`` the first layer is rewritten so that an agent that has
        learned something still says the same.

        Training with x/255 starts slower, and with a fast optimiser may not start at all: the common brightness of all
        pixels pushes every unit of the first layer the same way, and ReLUs die.
        """
        if self.network.padding == "same":
            raise ValueError("inputs of a padded network cannot be standardised: its zeros would have to shift too")
        mean, square = np.mean(moments, axis=0)
        self._scale_inputs(float(mean), 1.0 / max(1.0, float(square - mean**2)) ** 0.5, keep_outputs)

    def fold_input_scaling(self) -> None:
        """Rewrite the first layer so that the same outputs come from inputs scaled by 1/255."""
        if self.shift == 0 and self.scale == torch.tensor(1.0 / 255.0):
            return  # to the bit
        self._scale_inputs(0.0, 1.0 / 255.0, keep_outputs=True)

    @torch.no_grad()
    def _scale_inputs(self, shift: float, scale: float, keep_outputs: bool) -> None:
        weight, bias = self._scaled_first_layer()
        self.shift.fill_(shift)
        self.scale.fill_(scale)
        if keep_outputs:
            assert self.conv1.bias is not None
            self.conv1.weight.copy_(weight / self.scale)
            self.conv1.bias.copy_(bias + self.shift * weight.sum((1, 2, 3)))

    @torch.inference_mode()
    def q_values(
        self, observations: NDArray[np.uint8], game: str, precision: Precision = "float32"
    ) -> NDArray[np.float32]:
        """:meth:`forward` for acting: numpy in, numpy out, no gradients."""
        q_values: NDArray[np.float32] = self(torch.from_numpy(observations), game, precision).cpu().numpy()
        return q_values

    def predict(
        self,
        observation: NDArray[np.uint8],
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], tuple[NDArray[Any], ...] | None]:
        """Actions, with the signature of Stable-Baselines3's models, whose tools therefore take an agent of one game.

        Args:
            observation: uint8 (batch, 4, 84, 84) or (4, 84, 84), the oldest frame first; the frames may be last.
            state: handed back; like ``episode_start`` it is for recurrent policies.
            deterministic: the best action always; else as agents are scored here: a random one with probability 0.05,
                or sampled, where the agent's policy is.

        Returns:
            Indices into the game's actions, (batch,) or (), and the state.
        """
        if len(self.actions) != 1:
            raise ValueError(f"this agent plays {', '.join(self.actions)}: choose a game with agent.single(game)")
        images = np.asarray(observation)
        if images.shape[-3:] == (SIDE, SIDE, STACK):
            images = np.moveaxis(images, -1, -3)
        if images.dtype != np.uint8 or images.shape[-3:] != (STACK, SIDE, SIDE) or images.ndim not in (3, 4):
            raise ValueError(
                f"observations are {images.dtype} {images.shape}; expected uint8 ({STACK}, {SIDE}, {SIDE}) or a batch"
            )
        batch = np.ascontiguousarray(images.reshape(-1, STACK, SIDE, SIDE))
        (game,) = self.actions
        outputs = self.q_values(batch, game)
        acting = self.readouts[game].acting
        actions = outputs.argmax(1) if deterministic else choose(outputs, acting, EPSILON, self.rng)
        return (actions if images.ndim == 4 else actions.squeeze(0)), state

    def single(self, game: str) -> Agent:
        """An agent of one of the games alone: the trunk and its controller, copied. Raises ValueError."""
        if game not in self.actions:
            raise ValueError(f"this agent does not play {game}; it plays {', '.join(sorted(self.actions))}")
        single = copy.deepcopy(self)
        single.actions, single.readouts = {game: self.actions[game]}, {game: self.readouts[game]}
        single.controllers = nn.ModuleDict({game: single.controllers[game]})
        return single

    def frozen(self, precision: Precision) -> Agent:
        """A copy for acting in ``precision``, its big layers already cast: the same Q-values, to the bit.

        Else each forward pass casts them anew, which for a batch of 16 takes as long as a convolution.
        """
        frozen = copy.deepcopy(self).requires_grad_(False)
        if precision == "bfloat16":
            for name, layer in frozen.named_children():
                if name not in ("conv1", "norms", "controllers"):
                    layer.to(torch.bfloat16)
        return frozen

    @property
    def device(self) -> torch.device:
        return self.hidden.weight.device

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def _channels_innermost(images: Tensor) -> Tensor:
    if images.is_contiguous(memory_format=torch.channels_last):
        return images
    # In half of the time of contiguous(memory_format=torch.channels_last), whose kernel for bytes is slow on a CPU.
    return torch.stack(images.unbind(1), -1).permute(0, 3, 1, 2)


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


class Categorical(nn.Module):
    """Mean of a distribution over values: softmax over atoms, times where they lie (Bellemare et al. 2017)."""

    atoms: Tensor

    def __init__(self, support: Support) -> None:
        super().__init__()
        self.register_buffer("atoms", torch.linspace(support.lowest, support.highest, support.atoms), persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """Q-values (batch, actions) for (batch, actions * atoms), the atoms of one action beside each other."""
        distributions = logits.reshape(-1, logits.shape[1] // len(self.atoms), len(self.atoms)).softmax(2)
        values: Tensor = (distributions * self.atoms).sum(2)
        return values


def _controller(network: Network, num_actions: int, readout: Readout) -> nn.Module:
    outputs = num_actions * readout.rows
    layers: list[nn.Module] = []
    if network.controller is not None:
        layers += [nn.Linear(network.hidden, network.controller), nn.ReLU()]
    layers.append(nn.Linear(network.controller or network.hidden, outputs))
    if readout.support:
        layers.append(Categorical(readout.support))
    return nn.Sequential(*layers) if len(layers) > 1 else layers[0]
