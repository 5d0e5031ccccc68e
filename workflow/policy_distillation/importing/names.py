"""Names of tensors that mean the same: wrappers around a network, and noisy layers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .containers import Tensors

WRAPPERS = (
    "_orig_mod",  # torch.compile
    "module",  # torch.nn.DataParallel
    "model",
    "state_dict",
    "model_state_dict",
    "model_weights",
    "network_state_dict",
    "policy_state_dict",
    "agent",
    "agent_state_dict",
    "q_network",
    "q_network_state_dict",
)
"""What people and libraries put around a whole network: dictionaries and modules that compute nothing."""
BESIDE = ("optim", "lr_scheduler", "scheduler", "target", "model_old", "critic_optim")
"""Beginnings of what lies beside a network in a training checkpoint and is no part of it."""
NOISY = (  # (the means, what is left of the name, the noise)
    (r"\.weight_mu$", ".weight", r"\.weight_(sigma|epsilon)$"),
    (r"\.bias_mu$", ".bias", r"\.bias_(sigma|epsilon)$"),
    (r"\.kernel_mu$", ".kernel", r"\.kernel_sigma$"),
    (r"\.mu_W$", ".weight", r"\.(sigma_W|eps_p|eps_q)$"),
    (r"\.mu_bias$", ".bias", r"\.sigma_bias$"),
    (r"\.mu\.weight$", ".weight", r"\.sigma\.weight$"),
    (r"\.mu\.bias$", ".bias", r"\.sigma\.bias$"),
)
"""Noisy layers (Fortunato et al. 2018) as CleanRL, Kaixhin, Dopamine, tianshou and pfrl call their tensors."""


def without_noise(tensors: Tensors) -> tuple[Tensors, bool]:
    """Noisy layers by the names of plain ones, with their means; and whether there were any.

    A network without its noise is another agent than one with it, usually no worse.
    """
    found = any(re.search(mean, name) for name in tensors for mean, _, _ in NOISY)
    noise = any(re.search(sigma, name) for name in tensors for _, _, sigma in NOISY)
    if not (found and noise):
        return tensors, False
    plain = {}
    for name, tensor in tensors.items():
        for mean, end, sigma in NOISY:
            if re.search(mean, name):
                plain[re.sub(mean, end, name)] = tensor
                break
            if re.search(sigma, name):
                break
        else:
            plain.setdefault(name, tensor)
    return plain, True


def without_compile(tensors: Tensors) -> Tensors:
    """Without the components that torch.compile puts into names, at whatever place."""
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in tensors.items()}


def wrappers_of(names: Iterable[str], layer: str) -> list[str]:
    """What stands before ``layer`` in names that end with it, if that is made of wrappers alone; ``""`` is nothing."""
    before = {name[: -len(layer)] for name in names if name == layer or name.endswith(f".{layer}")}
    return sorted(p for p in before if all(part in WRAPPERS for part in p.rstrip(".").split(".") if part))


def unwrapped(tensors: Tensors, prefix: str) -> Tensors:
    """Tensors by their names within the wrapper, and what lies beside it unless it is of a kind that lies there."""
    if not prefix:
        return dict(tensors)
    inside = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    beside = {
        name: tensor for name, tensor in tensors.items() if not name.startswith(prefix) and not _lies_beside(name)
    }
    return {**beside, **inside}


def _lies_beside(name: str) -> bool:
    return any(part.lower().startswith(BESIDE) for part in name.split("."))
