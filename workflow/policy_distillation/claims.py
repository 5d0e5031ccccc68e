"""What is claimed of an experiment's students, by the paper or the user, and whether its scores bear that out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from .scores import Scores
from .statistics import Estimate

COLUMNS = ["says", "variant", "against", "margin", "difference", "low", "high", "games", "played", "seeds", "verdict"]


def judge(scores: Scores, claims: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a claim: that a variant's score is more than ``margin`` points above another's.

    A score is the mean over games of the percentage of the way from a random agent's mean return to the teacher's,
    whose own therefore is 100. Unlike a geometric mean of percentages it exists where a mean return is negative. A
    claim ``holds`` where the difference's 95% interval is above the margin, ``does not hold`` where it is below, and
    else is ``undecided``.

    Args:
        claims: ``says``, ``variant``; ``against``, a variant, or else the teachers; ``margin``, or else 0. One whose
            variants the experiment has not is left out (:func:`unjudged`): who changes the recipes need not change what
            the paper says.

    Columns: those of a claim, with ``against`` empty for the teachers; difference, low, high, in points; games: over
    how many of those ``played`` by both, in which the teacher is better than random play; seeds; verdict.
    """
    strangers = unjudged(scores, claims)
    rows = []
    for claim in claims:
        row = {"against": "", "margin": 0.0, **claim}
        if claim not in strangers:
            names = [name for name in (row["variant"], row["against"]) if name]
            played = scores.played_by(names)
            games = _with_points(scores, played)
            points = _difference(scores, games, row["variant"], row["against"])
            low, high = points.interval()
            verdict = "holds" if low > row["margin"] else "does not hold" if high < row["margin"] else "undecided"
            seeds = min(map(scores.seeds, names))
            row |= {"difference": points.value, "low": low, "high": high, "verdict": verdict}
            rows.append(row | {"games": len(games), "played": len(played), "seeds": seeds})
    return pd.DataFrame(rows, columns=COLUMNS)


def unjudged(scores: Scores, claims: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The claims that name a variant which the experiment has not."""
    return [claim for claim in claims if not {claim["variant"], claim.get("against", "")} <= {"", *scores.variants}]


def differences(scores: Scores) -> list[dict[str, Any]]:
    """By how many of these points each variant is above each later one: ``variant``, ``against``, ``difference``,
    ``low``, ``high``.

    Two variants' own intervals say less: their teachers' and random play's episodes are the same, their own are drawn
    alike, and what they have in common cancels out. Over the games that every variant plays; none where no game has
    such points.
    """
    games, found = _with_points(scores, scores.common_games), []
    for first, second in combinations(scores.variants, 2) if games else []:
        points = _difference(scores, games, first, second)
        low, high = points.interval()
        found.append({"variant": first, "against": second, "difference": points.value, "low": low, "high": high})
    return found


def _with_points(scores: Scores, games: Sequence[str]) -> list[str]:
    return [game for game in games if scores.means_something(game, "normalised")]


def _difference(scores: Scores, games: Sequence[str], variant: str, against: str) -> Estimate:
    if not games:
        return Estimate(float("nan"), np.full(1, np.nan))
    ours, theirs = (_points(scores, games, name) for name in (variant, against))
    return Estimate(ours.value - theirs.value, ours.samples - theirs.samples)


def _points(scores: Scores, games: Sequence[str], variant: str) -> Estimate:
    if not variant:
        return Estimate(100.0, np.full(1, 100.0))
    found = [scores.estimates[game, variant]["normalised"] for game in games]
    return Estimate(float(np.mean([each.value for each in found])), np.mean([each.samples for each in found], axis=0))
