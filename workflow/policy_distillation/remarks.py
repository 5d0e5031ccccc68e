"""What a table's reader should know of how its cells came about: data that has changed since, commits that differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
NAMED = 3
"""What a remark names; of more it says how many."""
TEMPERATURES = {"temperature": "q_values", "logits_temperature": "logits"}
"""Which of a teacher's outputs are divided by each."""


Facts = Mapping[str, Any]


def remarks(
    results: Path,
    students: Sequence[Sequence[Any]],
    scores: Sequence[Facts],
    teachers: Mapping[str, Facts],
    randoms: Sequence[Facts] = (),
    against: str | None = None,
) -> list[str]:
    """One sentence each.

    Args:
        results: where ``<results>`` is. What is no longer there, such as data sets, is not judged.
        students: as cells.table_facts has them.
        scores: the sidecar of each one's scores.
        teachers: those of the teachers' scores, by game.
        randoms: those of random play's scores.
        against: what the experiment varies.
    """
    found, stale, otherwise, fixed = [], [], [], set()
    sampled = [game for game, facts in teachers.items() if facts.get("acting") == "sample"]
    if sampled:
        found.append(f"The teachers' policies are sampled, without epsilon: {_some(sampled)}.")
    for (*cell, game, _, listing), facts in zip(students, scores, strict=True):
        name = f"{'/'.join(map(str, cell))} on {game}"
        if facts.get("acting", "epsilon_greedy") != teachers[game].get("acting", "epsilon_greedy"):
            otherwise.append(name)
        outputs = (facts["agent"].get("teacher_outputs") or {}).get(game, "q_values")
        if against in TEMPERATURES and outputs != TEMPERATURES[against]:
            fixed.add(game)
        if listing and _stale(Path(listing.replace("<results>", str(results))), game, facts):
            stale.append(name)
    if otherwise:
        found.append(f"Students that act otherwise than their teacher (acting): {_some(otherwise)}.")
    if fixed:
        (other,) = TEMPERATURES.keys() - {against}
        found.append(f"{against} changes nothing on {_some(sorted(fixed))}: {other} divides its outputs.")
    if stale:
        found.append(f"Learnt from other data than there is now: {_some(stale)}.")
    for what, commits in {
        "Students were made": {facts["agent"].get("commit") for facts in scores},
        "Scores were made": {facts.get("commit") for facts in (*scores, *teachers.values(), *randoms)},
    }.items():
        if len(commits) > 1:
            found.append(
                f"{what} by {len(commits)} different commits: {_some(sorted(c or 'unknown' for c in commits))}."
            )
    return found


def _stale(listing: Path, game: str, facts: Facts) -> bool:
    """Whether a list of data says otherwise than what an agent learnt a game from."""
    learnt = (facts["agent"].get("data") or {}).get(game)
    now = DIGEST.findall(listing.read_text()) if listing.exists() else []
    return bool(learnt and now) and now != learnt


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown
