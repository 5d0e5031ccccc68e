"""Figures of learning: students against updates, teachers against steps, both beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from .figures import STYLE, TEACHER, colours, legend, panels, title
from .readable import label
from .statistics import unsteadiness

UNITS = {"step": "agent steps", "update": "updates"}
Curves = Mapping[str, Mapping[str, Sequence[pd.DataFrame]]]
"""The rows of each seed's progress.csv, by game and by agent's name."""


def read_curves(facts: Mapping[str, Any], paths: Sequence[str]) -> Curves:
    """Those of an experiment's students, whose files come in the order of the facts (cells.figure_facts)."""
    curves: dict[str, dict[str, list[pd.DataFrame]]] = {game: {} for game in facts["games"]}
    for (games, variant), path in zip(facts["curves"], paths, strict=True):
        for game in games:
            curves[game].setdefault(variant, []).append(pd.read_csv(path))
    return curves


def learning_curves(curves: Curves, levels: Mapping[str, float] | None = None) -> Figure:
    """One panel a game, one line an agent: the mean over its seeds, and the range of them.

    Args:
        levels: by game a score to compare with: the teacher's.
    """
    names = list(dict.fromkeys(name for agents in curves.values() for name in agents))
    colour = dict(zip(names, colours(len(names)), strict=True))
    with plt.rc_context(STYLE):
        figure, all_axes = panels([title(game) for game in curves])
        for axes, (game, agents) in zip(all_axes, curves.items(), strict=True):
            for name, seeds in agents.items():
                unit = _unit(seeds[0])
                points = pd.concat(seeds).groupby(unit)[f"return_{game}"].agg(["mean", "min", "max"])
                if len(seeds) > 1:
                    axes.fill_between(points.index, points["min"], points["max"], color=colour[name], alpha=0.15, lw=0)
                axes.plot(points.index, points["mean"], "o-", markersize=3, color=colour[name], label=label(name))
                axes.set_xlabel(UNITS[unit])
            if levels is not None:
                axes.axhline(levels[game], color="#111111", linewidth=1, linestyle="--", label=TEACHER)
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        all_axes[0].set_ylabel("mean return")
        legend(figure)
    return figure


def _unit(rows: pd.DataFrame) -> str:
    return "update" if "update" in rows else "step"


def online_curves(
    teachers: Mapping[str, pd.DataFrame], students: Curves, levels: Mapping[str, float], points: int = 20
) -> Figure:
    """Teachers and their students over the course of each one's own training, with each curve's unsteadiness.

    Args:
        teachers: the rows of a progress.csv by game; those from elsewhere have none.
        levels: the teachers' final scores by game, drawn where there is no curve of theirs.
        points: at most, at which unsteadiness is measured, in percent of the teacher's best score; the mean over seeds.
    """
    names = list(dict.fromkeys(name for agents in students.values() for name in agents))
    colour = dict(zip(["", *names], colours(len(names) + 1), strict=True))
    with plt.rc_context(STYLE):
        figure, all_axes = panels([title(game) for game in students], width=3.6, height=3.4)
        for axes, (game, agents) in zip(all_axes, students.items(), strict=True):
            curves = {"": [teachers[game]]} if game in teachers else {}
            curves |= {name: list(seeds) for name, seeds in agents.items()}
            count = min(points, *(len(rows) for seeds in curves.values() for rows in seeds))
            best = abs(teachers[game][f"return_{game}"].max() if game in teachers else levels[game])
            for name, seeds in curves.items():
                returns = [rows[f"return_{game}"].to_numpy(float) for rows in seeds]
                roughness = 100 * np.mean([unsteadiness(curve, count) for curve in returns]) / best if best else np.nan
                text = (label(name) or TEACHER) + (f": {roughness:.1f}%" if np.isfinite(roughness) else "")
                for rows, curve in zip(seeds, returns, strict=True):
                    done = rows[_unit(rows)] / rows[_unit(rows)].max()
                    axes.plot(done, curve, color=colour[name], label=text, alpha=1 if len(seeds) == 1 else 0.6)
                    text = ""  # one entry for all seeds
            if game not in teachers:
                axes.axhline(levels[game], color="#111111", linewidth=1, linestyle="--", label=TEACHER)
            axes.set_xlabel("fraction of its training")
            axes.legend(fontsize=8, title="unsteadiness" if np.isfinite(roughness) else None, title_fontsize=8)
        all_axes[0].set_ylabel("mean return")
    return figure
