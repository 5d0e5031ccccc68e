"""Optimisers and learning-rate schedules, the same for teachers and students."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def orthogonalised(matrix: Tensor) -> Tensor:
    """``matrix`` with its singular values brought near 1: between 0.7 and 1.2 unless they were tiny.

    Five Newton-Schulz steps with the coefficients of Jordan et al. 2024 (kellerjordan.github.io/posts/muon), in the
    matrix's own precision.

    Args:
        matrix: (rows, columns) float32.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp(min=1e-7)  # no singular value above 1
    for _ in range(5):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), wide, beta=3.4445)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for the filters of convolutions, Adam for everything else.

    A bank of filters is a matrix, a row for each filter. Its step is the Nesterov momentum (0.95) of its gradients,
    :func:`orthogonalised` and times sqrt(max(1, rows / columns)), so that a step of rate r changes what the layer
    makes of any image by about r, however small the gradients are in most directions.

    Args:
        parameters: those of four dimensions are filters.
        filters_learning_rate: of the filters, ``learning_rate`` being Adam's. Both floats, or both tensors.
        capturable: as Adam's, for updates captured as a CUDA graph.
    """

    MOMENTUM = 0.95

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        filters_learning_rate: float | Tensor,
        learning_rate: float | Tensor,
        epsilon: float,
        capturable: bool = False,
    ) -> None:
        parameters = list(parameters)
        rest = [parameter for parameter in parameters if parameter.ndim != 4]
        self._adam = torch.optim.Adam(rest, learning_rate, eps=epsilon, fused=True, capturable=capturable)
        filters = {
            "params": [parameter for parameter in parameters if parameter.ndim == 4],
            "lr": filters_learning_rate,
        }
        super().__init__([filters, *self._adam.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "the loss is computed by the caller"
        filters, rest = self.param_groups
        for bank in filters["params"]:
            if bank.grad is None:
                continue
            gradient, state = bank.grad.flatten(1), self.state[bank]
            if not state:
                state["momentum"] = torch.zeros_like(gradient)
            state["momentum"].lerp_(gradient, 1 - self.MOMENTUM)
            change = orthogonalised(gradient.lerp(state["momentum"], self.MOMENTUM))
            rows, columns = change.shape
            bank.sub_((change * (filters["lr"] * max(1.0, rows / columns) ** 0.5)).view_as(bank))
        self._adam.param_groups, self._adam.state = [rest], self.state  # a restored optimiser has others than at first
        self._adam.step()


def make_optimizer(
    name: str,
    parameters: Iterable[torch.nn.Parameter],
    learning_rate: float,
    epsilon: float,
    filters_learning_rate: float = 0.0,
) -> torch.optim.Optimizer:
    """``rmsprop`` as Mnih et al. 2015 set it (decay 0.95, centred), ``adam``, or ``muon``: Muon for filters, else Adam.

    On a GPU its state and learning rates are tensors there, so that a whole update can be captured as a graph.

    Args:
        filters_learning_rate: read by ``muon`` only.
    """
    parameters = list(parameters)
    on_gpu = parameters[0].is_cuda

    def rate(value: float) -> float | Tensor:
        return torch.tensor(value, device=parameters[0].device) if on_gpu else value

    optimizer: torch.optim.Optimizer
    if name == "muon":
        optimizer = Muon(parameters, rate(filters_learning_rate), rate(learning_rate), epsilon, on_gpu)
    elif name == "rmsprop":
        optimizer = torch.optim.RMSprop(
            parameters, rate(learning_rate), alpha=0.95, eps=epsilon, centered=True, capturable=on_gpu
        )
    else:
        optimizer = torch.optim.Adam(parameters, rate(learning_rate), eps=epsilon, fused=True, capturable=on_gpu)
    for group in optimizer.param_groups:
        group["initial_lr"] = float(group["lr"])
    return optimizer


def scale_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's learning rate to ``factor`` times what it was made with."""
    for group in optimizer.param_groups:
        _set(group, factor * group["initial_lr"])


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a saved state, on whatever device it was made.

    How this device computes stays the new optimiser's own affair: its flags, and whether its rates are tensors.
    """
    own = [dict(group) for group in optimizer.param_groups]
    flags = ("capturable", "fused", "foreach", "differentiable")
    groups = [
        {**saved, **{flag: group[flag] for flag in flags if flag in group}}
        for saved, group in zip(state["param_groups"], own, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for group, before in zip(optimizer.param_groups, own, strict=True):
        saved, group["lr"] = float(group["lr"]), before["lr"]
        _set(group, saved)


def schedule_factor(done: int, total: int, schedule: str) -> float:
    """Of the initial rate: ``constant``, or down to zero over the run: ``linear``, or ``cosine`` (half a period)."""
    remaining = {"constant": 1.0, "linear": 1 - done / total, "cosine": 0.5 * (1 + math.cos(math.pi * done / total))}
    return remaining[schedule]


def _set(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)  # where a captured update reads it
    else:
        group["lr"] = rate
