"""Optimisers and learning-rate schedules, the same for teachers and students."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch


def make_optimizer(
    name: str, parameters: Iterable[torch.nn.Parameter], learning_rate: float, epsilon: float
) -> torch.optim.Optimizer:
    """``rmsprop`` as Mnih et al. 2015 set it (decay 0.95, centred), or ``adam``.

    On a GPU its state and learning rate are tensors there, so that a whole update can be captured as a graph.
    """
    parameters = list(parameters)
    on_gpu = parameters[0].is_cuda
    rate = torch.tensor(learning_rate, device=parameters[0].device) if on_gpu else learning_rate
    if name == "rmsprop":
        return torch.optim.RMSprop(parameters, rate, alpha=0.95, eps=epsilon, centered=True, capturable=on_gpu)
    return torch.optim.Adam(parameters, rate, eps=epsilon, fused=True, capturable=on_gpu)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    group = optimizer.param_groups[0]
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(rate)  # where a captured update reads it
    else:
        group["lr"] = rate


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a saved state. Its learning rate may have been a tensor on another device."""
    rate = optimizer.param_groups[0]["lr"]
    optimizer.load_state_dict(state)
    saved = float(optimizer.param_groups[0]["lr"])
    optimizer.param_groups[0]["lr"] = rate
    set_learning_rate(optimizer, saved)


def learning_rate(done: int, total: int, initial: float, schedule: str) -> float:
    """``constant``, or down to zero over the run: ``linear``, or ``cosine`` (half a period)."""
    remaining = {"constant": 1.0, "linear": 1 - done / total, "cosine": 0.5 * (1 + math.cos(math.pi * done / total))}
    return initial * remaining[schedule]
