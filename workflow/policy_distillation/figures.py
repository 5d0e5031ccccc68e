"""Figures: relative scores with the paper's marks, learning curves. Each goes to PNG, PDF for papers, SVG for pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .files import atomic_path
from .statistics import unsteadiness
from .tables import MEAN_ROW, label

COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb"]  # Paul Tol's, safe to most eyes
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "font.size": 10,
    "axes.titlesize": 11,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",  # text stays text, in the reader's font
    "svg.hashsalt": "policy distillation",  # equal figures, equal bytes
}
TITLES = {"ms_pacman": "MsPacman", "qbert": "Q*bert", MEAN_ROW: "geometric\nmean"}


AXES = {"data": "fraction of the data", "temperature": "temperature of the teacher's softmax"}


def title(game: str) -> str:
    """A game's name as the paper prints it."""
    return TITLES.get(game, "".join(word.capitalize() for word in game.split("_")))


def relative_scores(table: pd.DataFrame, variants: Sequence[str]) -> Figure:
    """Bars: percentage of the teacher's score per game and variant, with 95% intervals; diamonds: the paper's."""
    table = table[: table["game"].tolist().index(MEAN_ROW) + 1]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(2.2 + 1.5 * len(table), 3.6), layout="constrained")
        width = 0.8 / len(variants)
        published = any(table[f"{variant}_percent_paper"].notna().any() for variant in variants)
        places = np.arange(len(table))
        for index, variant in enumerate(variants):
            x = places + (index - (len(variants) - 1) / 2) * width
            percent = table[f"{variant}_percent"].to_numpy(float)
            axes.bar(x, np.nan_to_num(percent), width * 0.92, color=COLOURS[index], label=label(variant))
            low, high = table[f"{variant}_low"].to_numpy(float), table[f"{variant}_high"].to_numpy(float)
            axes.errorbar(x, percent, [percent - low, high - percent], fmt="none", ecolor="#333333", elinewidth=1)
            paper = table[f"{variant}_percent_paper"].to_numpy(float)
            mark = "paper" if index == len(variants) - 1 and published else None
            axes.plot(x, paper, "D", color="white", markeredgecolor="#111111", markersize=5, label=mark)
            for place in x[~np.isfinite(percent)]:
                axes.annotate("n/a", (place, 0), ha="center", va="bottom", fontsize=8, color="#777777")
        axes.axhline(100, color="#111111", linewidth=1, linestyle="--")
        axes.set_xticks(places, [title(game) for game in table["game"]])
        axes.tick_params(axis="x", length=0)
        axes.set_ylabel("score, % of the teacher's")
        figure.legend(loc="outside upper center", ncols=len(variants) + 1)
    return figure


def scores_against(table: pd.DataFrame, variants: Sequence[str], against: str) -> Figure:
    """Percentage of the teacher's score against a row of the table: a line a game, a thick one for the geometric mean.

    Args:
        against: ``parameters``, ``temperature`` or ``data``.
    """
    rows = table.set_index("game")
    sizes = rows.loc[against, list(variants)].to_numpy(float)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
        for index, game in enumerate(rows.index.drop([MEAN_ROW, against])):
            percent, low, high = (
                rows.loc[game, [f"{variant}_{part}" for variant in variants]].to_numpy(float)
                for part in ("percent", "low", "high")
            )
            axes.errorbar(
                sizes,
                percent,
                [percent - low, high - percent],
                marker="o",
                markersize=3,
                linewidth=1,
                elinewidth=0.7,
                color=COLOURS[index % len(COLOURS)],
                label=title(game),
            )
        mean = rows.loc[MEAN_ROW, [f"{variant}_percent" for variant in variants]].to_numpy(float)
        paper = rows.loc[MEAN_ROW, [f"{variant}_percent_paper" for variant in variants]].to_numpy(float)
        axes.plot(sizes, mean, "o-", color="#111111", linewidth=2.2, label="geometric mean")
        if np.isfinite(paper).any():
            axes.plot(sizes, paper, "D", color="white", markeredgecolor="#111111", label="paper")
        axes.axhline(100, color="#111111", linewidth=1, linestyle="--")
        axes.set_xscale("log")
        ticks = [f"{size:g}" for size in sizes]
        if against == "parameters":
            ticks = [f"{label(name)}\n{size / 1e3:,.0f} k" for name, size in zip(variants, sizes, strict=True)]
        axes.set_xticks(sizes, ticks)
        axes.minorticks_off()
        axes.set_xlabel(
            {"data": "fraction of the data", "temperature": "temperature of the teacher's softmax"}.get(
                against, against
            )
        )
        axes.set_ylabel("score, % of the teacher's")
        figure.legend(loc="outside right upper")
    return figure


def learning_curves(
    curves: Mapping[str, Mapping[str, pd.DataFrame]], x: str, levels: Mapping[str, float] | None = None
) -> Figure:
    """One panel a game, one line an agent.

    Args:
        curves: by game and by agent's name, the rows of a progress.csv.
        x: ``step`` or ``update``.
        levels: by game a score to compare with: the teacher's.
    """
    names = list(dict.fromkeys(name for agents in curves.values() for name in agents))
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            1, len(curves), figsize=(1.2 + 3.2 * len(curves), 3.2), layout="constrained", squeeze=False
        )
        for axes, (game, agents) in zip(panels[0], curves.items(), strict=True):
            for name, rows in agents.items():
                axes.plot(
                    rows[x],
                    rows[f"return_{game}"],
                    marker="o",
                    markersize=3,
                    color=COLOURS[names.index(name)],
                    label=name,
                )
            if levels is not None:
                axes.axhline(levels[game], color="#111111", linewidth=1, linestyle="--", label="teacher")
            axes.set_title(title(game))
            axes.set_xlabel({"step": "agent steps", "update": "updates"}[x])
            axes.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))
        panels[0][0].set_ylabel("mean return")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def online_curves(
    teachers: Mapping[str, pd.DataFrame], students: Mapping[str, Mapping[str, pd.DataFrame]], points: int = 20
) -> Figure:
    """Teachers and their students over the course of each one's own training, with each curve's unsteadiness.

    Args:
        teachers: the rows of a progress.csv by game.
        students: the same by game and variant.
        points: at most, at which unsteadiness is measured, in percent of the teacher's best score.
    """
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            1, len(teachers), figsize=(1.2 + 3.4 * len(teachers), 3.4), layout="constrained", squeeze=False
        )
        for axes, (game, teacher) in zip(panels[0], teachers.items(), strict=True):
            curves = {"teacher": (teacher, "step")} | {
                label(variant): (rows, "update") for variant, rows in students[game].items()
            }
            count = min(points, *(len(rows) for rows, _ in curves.values()))
            best = abs(teacher[f"return_{game}"].max())
            for colour, (name, (rows, unit)) in zip(COLOURS, curves.items(), strict=False):
                returns = rows[f"return_{game}"].to_numpy(float)
                roughness = 100 * unsteadiness(returns, count) / best if best else float("nan")
                axes.plot(
                    rows[unit] / rows[unit].max(), returns, color=colour, label=f"{name}: unsteadiness {roughness:.1f}%"
                )
            axes.set_title(title(game))
            axes.set_xlabel("fraction of its training")
            axes.legend(fontsize=8)
        panels[0][0].set_ylabel("mean return")
    return figure


def save_figure(figure: Figure, png: Path) -> None:
    """Write ``png`` and the same as PDF and SVG beside it."""
    for suffix, metadata in ((".png", None), (".pdf", None), (".svg", {"Date": None})):
        with atomic_path(png.with_suffix(suffix)) as temporary, plt.rc_context(STYLE):
            figure.savefig(temporary, dpi=160, metadata=metadata)
    plt.close(figure)
