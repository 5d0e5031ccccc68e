"""The libraries that people train Atari DQNs with: what their tensors are called, and how they drive the emulator.

Read from the libraries' sources: Stable-Baselines3 2.9, CleanRL, Dopamine 4 (JAX), tianshou 0.5 to 2, pfrl 0.4. All of
them train the network of Mnih et al. 2015; who changed it writes a mapping instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .containers import AgentImportError, Content
from .layouts import Convolution, Declaration, Dense


@dataclass(frozen=True)
class Library:
    protocol: str
    """How it drives the emulator: a name in :data:`policy_distillation.atari.PROTOCOLS`."""
    declarations: tuple[Declaration, ...]
    """The same network under the names that versions of the library gave it."""


def nature(convolutions: Sequence[str], hidden: str, output: str, **changes: Any) -> Declaration:
    """The network of Mnih et al. 2015 under the given keys."""
    sizes = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
    layers = tuple(Convolution(key, *size) for key, size in zip(convolutions, sizes, strict=True))
    return replace(Declaration(layers, (Dense(hidden, 512),), output), **changes)


def _flax(prefix: str, **changes: Any) -> Declaration:
    convolutions = [f"{prefix}Conv_{layer}" for layer in range(3)]
    return nature(convolutions, f"{prefix}Dense_0", f"{prefix}Dense_1", layout="flax", **changes)


def _tianshou(prefix: str, input_divisor: float | None) -> Declaration:
    convolutions = [f"{prefix}net.0.{layer}" for layer in (0, 2, 4)]
    ignore = ("model_old.", "model_target.", "policy.model_old.")
    return nature(convolutions, f"{prefix}net.1", f"{prefix}net.3", input_divisor=input_divisor, ignore=ignore)


LIBRARIES = {
    "sb3": Library(
        "sb3",
        (
            nature(
                [f"q_net.features_extractor.cnn.{layer}" for layer in (0, 2, 4)],
                "q_net.features_extractor.linear.0",
                "q_net.q_net.0",
                ignore=("q_net_target.",),
            ),
        ),
    ),
    "cleanrl": Library(
        "cleanrl",
        (
            nature([f"network.{layer}" for layer in (0, 2, 4)], "network.7", "network.9"),
            _flax("params."),
        ),
    ),
    "dopamine": Library(
        "dopamine",
        tuple(
            _flax(prefix, padding="same", ignore=("target_params.", "optimizer_state."))
            for prefix in ("online_params.params.", "online_params.")
        ),
    ),
    # Pixels reach the network as they are, unless it is wrapped in a module that divides them (or, before tianshou 1.0,
    # the environment divided them, which the file does not show).
    "tianshou": Library(
        "cleanrl",
        (
            _tianshou("policy.model.module.", 255.0),
            _tianshou("model.module.", 255.0),
            _tianshou("policy.model.", None),
            _tianshou("model.", None),
        ),
    ),
    "pfrl": Library(
        "pfrl",
        (nature([f"0.layers.{layer}" for layer in range(3)], "0.output", "1"),),
    ),
}


def recognise(content: Content, library: str | None = None) -> tuple[str, Declaration]:
    """The library whose names fit a file's tensors best, and the declaration; ``library``: look at no other.

    Raises AgentImportError where no name fits. Whether everything fits is :func:`layouts.check_tensors`'s business.
    """
    fits = [
        (sum(name in content.tensors for name in declaration.shapes(1)), name, declaration)
        for name in ([library] if library else LIBRARIES)
        for declaration in LIBRARIES[name].declarations
    ]
    best, name, declaration = max(fits, key=lambda fit: fit[0])
    if best == 0:
        have = ", ".join(sorted(content.tensors)[:4]) or "no tensors at all"
        raise AgentImportError(
            f"a {content.container} file with {have}, ...: not how {library or ', '.join(LIBRARIES)} call them; "
            f"describe the network in a mapping"
        )
    if name == "sb3" and content.facts.get("normalize_images") is False:
        declaration = replace(declaration, input_divisor=1.0)
    return name, declaration
