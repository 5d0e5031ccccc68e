"""One page that tells the result: tables, figures, videos, what it took and how each number came about.

It is a single file that needs no network: pictures and videos are inside it. How it looks is workflow/report/page.html.
"""

from __future__ import annotations

import base64
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from .figures import title as game_title
from .readable import label, number
from .sidecar import read_sidecar
from .tables import MEAN_ROW

MOST_CELLS = 500
"""Of an experiment, that are described on the page: 2 kB each."""


@dataclass(frozen=True)
class Shown:
    """A student on a game."""

    game: str
    variant: str
    name: str
    """What it is called: its set of games, if it plays several, recipe, network and seed."""
    scores: Path


@dataclass(frozen=True)
class Section:
    """What the page shows of an experiment."""

    name: str
    title: str
    table: Path
    """Its CSV."""
    variants: Sequence[str]
    cells: Sequence[Shown]
    figures: Sequence[Path]
    """SVG."""
    videos: Sequence[Path]


@dataclass(frozen=True)
class Percentage:
    """A percentage of the teacher's score."""

    percent: float
    low: float
    high: float
    score: float
    """Mean return; NaN for a mean over games."""
    paper: float
    """The paper's percentage, or NaN."""

    @property
    def beside_the_teacher(self) -> str:
        """What the interval says."""
        if self.low > 100:
            return "better than"
        return "behind" if self.high < 100 else "not told apart from"


def render(experiments: Sequence[Section], template: Path, facts: Mapping[str, Any], benchmarks: Path) -> str:
    """The page, as HTML.

    Args:
        facts: for the introduction: ``results``, ``protocol``; ``teacher_curves``, paths of SVGs.
        benchmarks: the folder of the jobs' times, by rule.
    """
    cells = [cell for experiment in experiments for cell in experiment.cells]
    origins = {cell.scores: read_sidecar(cell.scores) for cell in cells}
    # One a folder; an agent that learned the games itself is none.
    distilled = {scores.parent for scores, origin in origins.items() if origin["agent"]["kind"] == "student"}
    evaluations = [origin["evaluation"] for origin in origins.values()]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": shown, "interval": interval, "label": label, "game": game_title, "placed": placed}
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        facts=facts,
        sections=[_section(experiment, origins) for experiment in experiments],
        teacher_curves=[picture(path, "Learning curves of the teachers") for path in facts["teacher_curves"]],
        students=len(distilled),
        games=sorted({game_title(cell.game) for cell in cells}),
        episodes=sorted({played["episodes"] for played in evaluations}),
        epsilon=[f"{100 * each:g}%" for each in sorted({played["epsilon"] for played in evaluations})],
        teacher_steps=sorted({played["teacher_steps"] for played in evaluations if played["starts"] == "teacher"}),
        sampled=any(origin.get("acting") == "sample" for origin in origins.values()),
        seeds=seed_counts(experiments),
        costs=costs(benchmarks),
        made={
            "students, by commit": _distinct(_commit(origin["agent"]) for origin in origins.values()),
            "students, on": _distinct(_hardware(origin["agent"]) for origin in origins.values()),
            "scores, by commit": _distinct(_commit(origin) for origin in origins.values()),
            "scores, on": _distinct(_hardware(origin) for origin in origins.values()),
            "scores, with": _distinct(
                ", ".join(f"{name} {version}" for name, version in origin["software"].items())
                for origin in origins.values()
            ),
        },
    )


def seed_counts(experiments: Sequence[Section]) -> set[int]:
    """How many seeds there are of a variant on a game: 1 says that an interval means less."""
    cells = [(experiment.name, cell) for experiment in experiments for cell in experiment.cells]
    return set(Counter((name, cell.variant, cell.game) for name, cell in cells).values())


def _section(experiment: Section, origins: Mapping[Path, Mapping[str, Any]]) -> dict[str, Any]:
    rows, notes = read_table(experiment.table, experiment.variants)
    headline, made_by = rows[-1]["estimates"], read_sidecar(experiment.table)
    return {
        "name": experiment.name,
        "title": experiment.title,
        "rows": rows,
        "several": len(rows) > 1,
        "variants": experiment.variants,
        "published": any(math.isfinite(each.paper) for row in rows for each in row["estimates"].values()),
        "notes": [*notes, *made_by.get("remarks", [])],
        "headline": headline,
        "axis": _axis(headline.values()),
        "findings": findings(headline, made_by.get("differences", [])),
        "claims": made_by.get("claims", []),
        "figures": [picture(path, _alt(experiment.title, path, made_by["against"])) for path in experiment.figures],
        "videos": [video(path, experiment.title) for path in experiment.videos],
        "cells": [cell_origin(cell, origins[cell.scores]) for cell in experiment.cells[:MOST_CELLS]],
        "unlisted": max(0, len(experiment.cells) - MOST_CELLS),
    }


def read_table(csv: Path, variants: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """An experiment's rows, one a game and where there are several their geometric mean; and the table's notes."""
    table = pd.read_csv(csv, dtype={"note": str})
    end = table["game"].tolist().index(MEAN_ROW)
    rows = []
    parts = ("percent", "low", "high", "score", "percent_paper")
    for record in table[: end + 1 if end > 1 else end].to_dict("records"):
        estimates = {name: Percentage(*(float(record[f"{name}.{part}"]) for part in parts)) for name in variants}
        rows.append({"game": record["game"], "teacher": float(record["teacher"]), "estimates": estimates})
    games_notes = zip(table["game"], table["note"].fillna(""), strict=True)
    return rows, [f"{game_title(game)}: {note}".replace("\n", " ") for game, note in games_notes if note]


def findings(headline: Mapping[str, Percentage], differences: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the intervals decide: who is ahead of the teacher or behind, who is behind the best or close to it.

    Args:
        differences: of each two variants' scores (claims.differences).
    """
    known = {variant: each for variant, each in headline.items() if math.isfinite(each.low)}
    found = []
    for verdict in ("better than", "not told apart from", "behind"):
        names = [label(name) for name, each in known.items() if each.beside_the_teacher == verdict]
        if names:
            found.append(f"{_listed(names)} {'is' if len(names) == 1 else 'are'} {verdict} the teacher.")
    lead = {(each["variant"], each["against"]): (each["difference"], each["low"]) for each in differences}
    lead |= {(each["against"], each["variant"]): (-each["difference"], -each["high"]) for each in differences}
    compared = [name for name in headline if any(name in pair for pair in lead)]
    # On the differences' own scale: a geometric mean of percentages may put another one first, or not exist.
    best = max(compared, key=lambda name: sum(lead.get((name, other), (0, 0))[0] for other in compared), default="")
    apart = [label(name) for name in compared if (best, name) in lead and lead[best, name][1] > 0]
    close = [label(name) for name in compared if (best, name) in lead and lead[best, name][1] <= 0]
    if apart:
        found.append(f"{label(best)} is ahead of {_listed(apart)}: 0 is not in the interval of their difference.")
    if close:
        found.append(f"{label(best)} cannot be told from {_listed(close)}: 0 is in the interval of their difference.")
    return found


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _axis(estimates: Iterable[Percentage]) -> float:
    """The right end of the headline's scale, in percent: a multiple of 20 that shows every interval, at most 200."""
    highest = max((each.high for each in estimates if math.isfinite(each.high)), default=100.0)
    return min(200.0, 20.0 * math.ceil(max(highest, 100.0) / 20.0 + 0.25))


def placed(percent: float, axis: float) -> float:
    """How far along the headline's scale a percentage is, in percent of its length; at an end if it is beyond."""
    return 100 * min(max(percent, 0.0), axis) / axis


def picture(svg: Path, alt: str) -> dict[str, Any]:
    """A figure as a data URI, in the reader's font, dark where the page is; and its width in pixels."""
    text = svg.read_text(encoding="utf-8")
    opening = re.search(r"<svg\b[^>]*>", text)
    width = re.search(r'<svg\b[^>]*?\bwidth="([\d.]+)pt"', text)
    if opening is None or width is None:
        raise ValueError(f"{svg}: not an SVG with a width in points")
    text = f"{text[: opening.end()]}<style>{SVG_STYLE}</style>{text[opening.end() :]}"
    return {"source": _data("image/svg+xml", text.encode()), "alt": alt, "width": round(float(width[1]) * 96 / 72)}


SVG_STYLE = """
text { font-family: system-ui, sans-serif !important }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e9ed !important }
  [style*="fill: #ffffff"] { fill: #15181c !important }
  [style*="fill: #111111"] { fill: #e6e9ed !important }
  [style*="stroke: #000000"], [style*="stroke: #111111"], [style*="stroke: #333333"] { stroke: #c3c9d1 !important }
  [style*="stroke: #e6e6e6"] { stroke: #30363d !important }
}
"""


def _alt(title: str, svg: Path, against: str) -> str:
    if svg.stem == "profile":
        return f"{title}: the fraction of runs above each score on the way from random play to the teacher"
    if svg.stem == "curves":
        return f"{title}: mean return of the students while they learn, beside their teachers'"
    if against == "teacher":
        return f"{title}: learning curves of the teachers and of their students, each over its own training"
    return f"{title}: scores in percent of the teachers', with intervals; the table has the numbers"


def video(mp4: Path, title: str) -> dict[str, str]:
    """A film as a data URI, and who reached what in it."""
    facts = read_sidecar(mp4)
    players = zip(map(label, facts["titles"]), facts["scores"].split(", "), strict=True)
    return {
        "source": _data("video/mp4", mp4.read_bytes()),
        "label": f"{title}: {game_title(facts['game'])}",
        "caption": f"{game_title(facts['game'])}: " + ", ".join(f"{who} {score}" for who, score in players),
    }


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def cell_origin(cell: Shown, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's mean score and, as readable text, what made it."""
    scores = pd.read_csv(cell.scores)["return"]
    return {
        "name": f"{game_title(cell.game)} · {cell.name}",
        "score": float(scores.mean()),
        "episodes": len(scores),
        "origin": yaml.safe_dump(dict(facts), sort_keys=False, allow_unicode=True, default_flow_style=None, width=88),
    }


def costs(benchmarks: Path) -> list[dict[str, Any]]:
    """What the jobs of each rule took: number, hours together, the longest in minutes, most memory in GB."""
    rows = []
    for folder in sorted(path for path in benchmarks.glob("*") if path.is_dir()):
        jobs = [pd.read_csv(path, sep="\t", na_values="-") for path in sorted(folder.rglob("*.tsv"))]
        if jobs:
            runs = pd.concat(jobs)
            rows.append(
                {
                    "rule": folder.name.replace("_", " "),
                    "jobs": len(runs),
                    "minutes": float(runs["s"].sum() / 60),
                    "longest": float(runs["s"].max() / 60),
                    "memory": float(pd.to_numeric(runs["max_rss"], errors="coerce").max() / 1024),
                }
            )
    return rows


def _commit(facts: Mapping[str, Any]) -> str:
    return facts.get("commit") or "not recorded"


def _hardware(facts: Mapping[str, Any]) -> str:
    hardware = facts.get("hardware")
    return ", ".join(filter(None, (hardware["cpu"], hardware["gpu"]))) if hardware else "not recorded"


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def shown(value: float) -> str:
    """As in the tables; a dash where there is none."""
    return number(value) or "\N{EN DASH}"


def interval(estimate: Percentage) -> str:
    """``[95, 103]``, or nothing where there is none."""
    return f"[{estimate.low:,.0f}, {estimate.high:,.0f}]" if math.isfinite(estimate.low) else ""
