"""Which library's agent a file holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..readouts import Support
from .containers import AgentImportError, Content, Tensors
from .declarations import WEIGHT, Declaration
from .libraries import LIBRARIES
from .names import unwrapped, without_compile, without_noise, wrappers_of
from .refusals import refuse_known

NOISE = "its noisy layers play without their noise: with the means of their weights"


@dataclass(frozen=True)
class Recognised:
    """What a file is taken for."""

    library: str
    declaration: Declaration
    tensors: Tensors
    """By the names that the declaration uses."""


def tidy(content: Content) -> tuple[Tensors, list[str]]:
    """A file's tensors by plain names, and notes on what that meant."""
    tensors, noisy = without_noise(without_compile(content.tensors))
    return tensors, [NOISE] if noisy else []


def recognise(content: Content, actions: int, library: str | None = None) -> Recognised:
    """The library whose names fit a file's tensors best, and what it says of the agent.

    Args:
        actions: how many the game has: where several read-outs have the same names, the number of rows decides.
        library: look at no other.

    Raises AgentImportError where no name fits, where several networks do, and for networks that are known not to be
    importable. Whether everything fits is :func:`refusals.check_tensors`'s business.
    """
    tensors, notes = tidy(content)
    refuse_known(tensors)
    fits = []
    for name in [library] if library else LIBRARIES:
        for declaration in LIBRARIES[name].declarations:
            first = f"{declaration.convolutions[0].key}.{WEIGHT[declaration.layout]}"
            for prefix in wrappers_of(tensors, first) or [""]:
                inside, candidate = unwrapped(tensors, prefix), declaration
                if declaration.shapes(1).keys() <= inside.keys():
                    candidate = resolve_support(declaration, inside, content)
                fits.append((_fit(candidate, inside, actions), name, candidate, inside, prefix))
    best, name, declaration, inside, prefix = max(fits, key=lambda fit: fit[0])
    if best[1] == 0:
        have = ", ".join(sorted(content.tensors)[:4]) or "no tensors at all"
        raise AgentImportError(
            f"a {content.container} file with {have[:300]}, ...: not how {library or ', '.join(LIBRARIES)} call them; "
            f"describe the network in a mapping"
        )
    rivals = sorted({fit[4] for fit in fits if fit[0] == best and fit[1] == name and fit[4] != prefix})
    if best[0] and rivals:
        raise AgentImportError(
            f"it holds several networks, under {', '.join(repr(p) for p in (prefix, *rivals))}: say which in a mapping"
        )
    if name == "sb3" and content.facts.get("normalize_images") is False:
        declaration = replace(declaration, input_divisor=1.0)
    return Recognised(name, replace(declaration, notes=(*declaration.notes, *notes)), inside)


def _fit(declaration: Declaration, tensors: Tensors, actions: int) -> tuple[bool, int, bool, int]:
    """Of several declarations the largest fits best: all there, how many are, rows for the actions, nothing else."""
    names = declaration.shapes(1)
    present = sum(name in tensors for name in names)
    rows, head = declaration.rows(tensors), declaration.head
    rows_fit = (
        rows is not None and rows == actions * head.width(rows, actions) and (rows > actions) != (head.kind == "plain")
    )
    others = sum(name not in names and not declaration.ignores(name) for name in tensors)
    return present == len(names), present, rows_fit, -others


def resolve_support(declaration: Declaration, tensors: Tensors, content: Content) -> Declaration:
    """The declaration with the support that the file holds, or else with the library's usual one, and a note on it."""
    head = declaration.head
    if head.kind != "categorical":
        return declaration
    settings = [content.values.get(f"{head.support_settings}{name}") for name in ("v_min", "v_max", "n_atoms")]
    try:
        if head.support_key in tensors:
            support, origin = _evenly_spaced(head.support_key, tensors[head.support_key]), "in the file"
        elif head.support_settings is not None and None not in settings:
            lowest, highest, atoms = (value or 0.0 for value in settings)
            support, origin = Support(lowest, highest, int(atoms)), "in the file's settings"
        elif head.support is not None:
            support, origin = head.support, "NOT in the file: assumed, as is usual"
        else:
            raise AgentImportError(f"the file lacks its support, {head.support_key}")
    except ValueError as error:
        raise AgentImportError(str(error)) from None
    note = f"support {support.lowest:g} to {support.highest:g}, {support.atoms} atoms: {origin}"
    return replace(declaration, head=replace(head, support=support), notes=(*declaration.notes, note))


def _evenly_spaced(key: str, atoms: NDArray[np.float32]) -> Support:
    support = Support(float(atoms[0]), float(atoms[-1]), len(atoms)) if atoms.ndim == 1 and len(atoms) else None
    if support is None or not np.allclose(atoms, np.linspace(atoms[0], atoms[-1], len(atoms)), atol=1e-4):
        raise AgentImportError(f"{key} {atoms.shape} is no row of evenly spaced values")
    return support
