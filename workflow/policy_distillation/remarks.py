"""What a table's reader should know of how its cells came about: settings or data that have changed since, commits."""

from __future__ import annotations

import json
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
    results: Path, facts: Facts, scores: Sequence[Facts], teachers: Mapping[str, Facts], randoms: Sequence[Facts]
) -> list[str]:
    """One sentence each.

    Args:
        results: where ``<results>`` is. What is no longer there, such as data sets, is not judged.
        facts: what the table is made by (cells.table_facts). Snakemake makes anew what was made otherwise, but forgets
            how it was where its own records (.snakemake) are gone.
        scores: the sidecar of each student's scores, in the order of the facts.
        teachers: those of the teachers' scores, by game.
        randoms: those of random play's scores.
    """
    found, stale, otherwise, before, fixed = [], [], [], [], set()
    against = facts["against"]
    sampled = [game for game, teacher in teachers.items() if teacher.get("acting") == "sample"]
    if sampled:
        found.append(f"The teachers' policies are sampled, without epsilon: {_some(sampled)}.")
    for student, score in zip(facts["students"], scores, strict=True):
        game, agent = student["game"], score["agent"]
        name = "{games}/{recipe}/{network}/{seed} on {game}".format_map(student)
        if score.get("acting", "epsilon_greedy") != teachers[game].get("acting", "epsilon_greedy"):
            otherwise.append(name)
        outputs = (agent.get("teacher_outputs") or {}).get(game, "q_values")
        if against in TEMPERATURES and outputs != TEMPERATURES[against]:
            fixed.add(game)
        recipe = facts["recipes"]["{games}/{recipe}".format_map(student)]
        network = facts["networks"][student["network"]]
        if _differ(agent.get("settings"), recipe) or _differ(agent.get("network"), network):
            before.append(name)
        if student["data"] and _stale(Path(student["data"].replace("<results>", str(results))), game, score):
            stale.append(name)
    if otherwise:
        found.append(f"Students that act otherwise than their teacher (acting): {_some(otherwise)}.")
    if fixed:
        (other,) = TEMPERATURES.keys() - {against}
        found.append(f"{against} changes nothing on {_some(sorted(fixed))}: {other} divides its outputs.")
    if before:
        found.append(
            f"Made under other settings than the configuration's: {_some(before)}; --forcerun makes them anew."
        )
    if stale:
        found.append(f"Learnt from other data than there is now: {_some(stale)}.")
    agents = [score["agent"] for score in scores]
    makers = [maker for agent in agents for maker in (agent, *(agent.get("begun_by") or []))]
    for what, commits in {
        "Students were made": {maker.get("commit") for maker in makers},
        "Scores were made": {score.get("commit") for score in (*scores, *teachers.values(), *randoms)},
    }.items():
        if len(commits) > 1:
            found.append(
                f"{what} by {len(commits)} different commits: {_some(sorted(c or 'unknown' for c in commits))}."
            )
    return found


def _differ(then: Facts | None, now: Facts) -> bool:
    """Whether what is set now was something else then; what an older file does not name was what it is by default."""
    return any(json.dumps(then[name]) != json.dumps(value) for name, value in now.items() if then and name in then)


def _stale(listing: Path, game: str, facts: Facts) -> bool:
    """Whether a list of data says otherwise than what an agent learnt a game from."""
    agent = facts["agent"]
    learnt = (agent.get("data") or {}).get(game)
    now = DIGEST.findall(listing.read_text()) if listing.exists() else []
    if learnt and (agent.get("settings") or {}).get("driver", "teacher") != "teacher":
        now = now[: len(learnt)]  # of the teacher's play it learns from the first hour alone
    return bool(learnt and now) and now != learnt


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown
