"""Which library's agent a file holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..readouts import MOST_ACTIONS, Support
from .containers import AgentImportError, Content, Tensors
from .declarations import WEIGHT, Declaration, Head
from .libraries import LIBRARIES
from .names import unwrapped, without_compile, without_noise, wrappers_of
from .refusals import refuse_known

NOISE = "its noisy layers play without their noise: with the means of their weights"
ASSUMED = "NOT in the file: assumed, as is usual"
MOST_WRAPPERS = 8
"""Around one and the same layer; each costs a look at the whole file."""


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


@dataclass(frozen=True)
class _Candidate:
    """A declaration beside a file's tensors, seen from inside one wrapper."""

    library: str
    declaration: Declaration
    tensors: Tensors
    prefix: str

    @property
    def present(self) -> int:
        """How many of the declared tensors are there."""
        return len(self.declaration.shapes(1).keys() & self.tensors.keys())

    @property
    def complete(self) -> bool:
        return self.present == len(self.declaration.shapes(1))

    @property
    def misfit(self) -> str | None:
        """Why the rows of the output layer are not what is declared; None: they are."""
        rows, head, kind = self.declaration.rows(self.tensors), self.declaration.head, self.declaration.kind
        if rows is None:
            return f"{kind}: no output layer"
        if head.kind == "categorical" and head.support is None:
            return f"{kind}: the file lacks {head.support_key}"
        if rows % head.width == 0 and 1 <= rows // head.width <= MOST_ACTIONS:
            return None
        return f"{kind}: {'one row' if head.kind == 'plain' else f'{head.width} {head.unit}'} an action"

    @property
    def fit(self) -> tuple[bool, int, int, int]:
        """The largest fits best: all there, how many are, rows as declared (as the file itself says, before as is
        usual), nothing else."""
        rows_fit = 0 if self.misfit else 1 + self.declaration.head.stated
        names = self.declaration.shapes(1)
        others = sum(name not in names and not self.declaration.ignores(name) for name in self.tensors)
        return self.complete, self.present, rows_fit, -others


def recognise(content: Content, library: str | None = None) -> Recognised:
    """The library whose names fit a file's tensors best, and what it says of the agent.

    Where several read-outs have the same names, the number of rows decides: an emulator has 18 actions at most, which
    is fewer than the atoms or quantiles of one.

    Args:
        library: look at no other.

    Raises AgentImportError where no name fits, where several networks do, where the rows of the output layer are
    nothing that is known, and for networks that are known not to be importable. Whether everything fits is
    :func:`refusals.check_tensors`'s business.
    """
    tensors, notes = tidy(content)
    refuse_known(tensors)
    candidates = list(_candidates(tensors, content, [library] if library else list(LIBRARIES)))
    best = max(candidates, key=lambda candidate: candidate.fit)
    if not best.present:
        have = ", ".join(sorted(content.tensors)[:4]) or "no tensors at all"
        raise AgentImportError(
            f"a {content.container} file with {have[:300]}, ...: not how {library or ', '.join(LIBRARIES)} call them; "
            f"describe the network in a mapping"
        )
    same = [candidate for candidate in candidates if candidate.library == best.library]
    rivals = sorted({other.prefix for other in same if other.fit == best.fit and other.prefix != best.prefix})
    if best.complete and rivals:
        raise _several((best.prefix, *rivals))
    if best.complete and best.misfit:
        reasons = [other.misfit for other in same if other.complete and other.prefix == best.prefix and other.misfit]
        raise AgentImportError(
            f"its output layer has {best.declaration.rows(best.tensors)} rows, which no agent of {best.library} has "
            f"({'; '.join(dict.fromkeys(reasons))}; 1 to {MOST_ACTIONS} actions); say in a mapping what they are"
        )
    declaration = replace(best.declaration, notes=(*best.declaration.notes, *notes))
    if best.library == "sb3" and content.facts.get("normalize_images") is False:
        # Bytes as they are; anything else its environment had scaled by then, who knows by how much.
        divisor = 1.0 if content.facts["observations"] == "uint8" else None
        declaration = replace(declaration, input_divisor=divisor)
    return Recognised(best.library, declaration, best.tensors)


def _candidates(tensors: Tensors, content: Content, libraries: Iterable[str]) -> Iterator[_Candidate]:
    for library in libraries:
        for declaration in LIBRARIES[library].declarations:
            first = f"{declaration.convolutions[0].key}.{WEIGHT[declaration.layout]}"
            prefixes = wrappers_of(tensors, first) or [""]
            if len(prefixes) > MOST_WRAPPERS:
                raise _several((*prefixes[:MOST_WRAPPERS], "..."))
            for prefix in prefixes:
                candidate = _Candidate(library, declaration, unwrapped(tensors, prefix), prefix)
                if candidate.complete:
                    resolved = resolve_head(declaration, candidate.tensors, content, ASSUMED)
                    candidate = replace(candidate, declaration=resolved)
                yield candidate


def _several(prefixes: Iterable[str]) -> AgentImportError:
    return AgentImportError(
        f"it holds several networks, under {', '.join(map(repr, prefixes))}: say which in a mapping"
    )


def resolve_head(declaration: Declaration, tensors: Tensors, content: Content, otherwise: str) -> Declaration:
    """The declaration with the support, or the number of quantiles, that the file holds, or else with its own, and a
    note on it. Where neither has a support, none.

    Args:
        otherwise: where those come from that the file does not hold.
    """
    head = declaration.head
    if head.kind == "plain":
        return declaration
    try:
        found = (_quantiles if head.kind == "quantiles" else _support)(head, tensors, content)
    except ValueError as error:
        raise AgentImportError(str(error)) from None
    head, origin = found or (head, otherwise)
    note = f"{head.width} quantiles an action: {origin}"
    if head.kind == "categorical":
        if head.support is None:
            return declaration
        note = f"support {head.support.lowest:g} to {head.support.highest:g}, {head.width} atoms: {origin}"
    return replace(declaration, head=head, notes=(*declaration.notes, note))


def _quantiles(head: Head, tensors: Tensors, content: Content) -> tuple[Head, str] | None:
    """The head with what the file says, and where it says it; None: it does not."""
    if head.quantiles_key in tensors:
        number, origin = tensors[head.quantiles_key].size, "in the file"
    else:
        number, origin = content.facts.get(head.quantiles_fact or "", 0), "in the file's settings"
    return (replace(head, quantiles=number, stated=True), origin) if number > 0 else None


def _support(head: Head, tensors: Tensors, content: Content) -> tuple[Head, str] | None:
    """The head with what the file says, and where it says it; None: it does not. Raises ValueError."""
    settings = [content.values.get(f"{head.support_settings}{name}") for name in ("v_min", "v_max", "n_atoms")]
    if head.support_key in tensors:
        support, origin = _evenly_spaced(head.support_key, tensors[head.support_key]), "in the file"
    elif head.support_settings is not None and None not in settings:
        lowest, highest, atoms = (value or 0.0 for value in settings)
        support, origin = Support(lowest, highest, int(atoms)), "in the file's settings"
    else:
        return None
    return replace(head, support=support, stated=True), origin


def _evenly_spaced(key: str, atoms: NDArray[np.float32]) -> Support:
    support = Support(float(atoms[0]), float(atoms[-1]), len(atoms)) if atoms.ndim == 1 and len(atoms) else None
    if support is None or not np.allclose(atoms, np.linspace(atoms[0], atoms[-1], len(atoms)), atol=1e-4):
        raise AgentImportError(f"{key} {atoms.shape} is no row of evenly spaced values")
    return support
