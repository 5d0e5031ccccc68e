"""Figures of scores: bars per game, lines against what the variants differ in, performance profiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .figures import PAPER, STYLE, colours, legend, panels, title
from .readable import label
from .statistics import Returns, performance_profile, stratified_bootstrap_interval
from .tables import MEAN_ROW

AXES = {
    "percent": "score, % of the teacher's",
    "normalised": "score, % of the way from\nrandom play to the teacher",
    "data": "fraction of the data",
    "temperature": "temperature of the teacher's softmax",
    "logits_temperature": "temperature of the softmax of the teacher's logits",
    "parameters": "parameters",
}
SHOWN = (-150.0, 400.0)
"""Percentages; a bar beyond is cut and its number written there, or it would make the others invisible."""


def shown_scale(table: pd.DataFrame, variants: Sequence[str]) -> str:
    """``percent``, as in the paper; ``normalised`` where no teacher of a table has percentages."""
    return "percent" if table[[f"{variant}.percent" for variant in variants]].notna().any(axis=None) else "normalised"


def on_scale(table: pd.DataFrame, variant: str, scale: str) -> tuple[Returns, Returns, Returns]:
    """A variant's value in each row, and how far its interval reaches below and above."""
    prefix = "" if scale == "percent" else "normalised_"
    value, low, high = (table[f"{variant}.{name}"].to_numpy(float) for name in (scale, f"{prefix}low", f"{prefix}high"))
    return value, np.maximum(value - low, 0), np.maximum(high - value, 0)


def relative_scores(table: pd.DataFrame, variants: Sequence[str]) -> Figure:
    """Bars: percentage of the teacher's score per game and variant, with 95% intervals; diamonds: the paper's."""
    scale = shown_scale(table, variants)
    games = table["game"].tolist().index(MEAN_ROW)
    table = table[: games + (scale == "percent" and games > 1)]
    group = max(1.3, 0.5 + 0.33 * len(variants))
    count = math.ceil(len(table) / max(1, int(14 // group)))
    stretches = np.array_split(np.arange(len(table)), count)
    with plt.rc_context(STYLE):
        size = (max(5.0, 2.2 + group * len(stretches[0])), 0.6 + 3.0 * count)
        figure, rows = plt.subplots(count, 1, figsize=size, layout="constrained", squeeze=False, sharey=True)
        for axes, stretch in zip(rows[:, 0], stretches, strict=True):
            _bars(axes, table.iloc[stretch], variants, scale)
            axes.set_xlim(-0.5, len(stretches[0]) - 0.5)
            axes.set_ylabel(AXES[scale])
        legend(figure)
    return figure


def _bars(axes: Axes, table: pd.DataFrame, variants: Sequence[str], scale: str) -> None:
    width, places = 0.8 / len(variants), np.arange(len(table))
    for index, (variant, colour) in enumerate(zip(variants, colours(len(variants)), strict=True)):
        x = places + (index - (len(variants) - 1) / 2) * width
        value, below, above = on_scale(table, variant, scale)
        shown = np.clip(value, *SHOWN)
        axes.bar(x, np.nan_to_num(shown), width * 0.92, color=colour, label=label(variant))
        inside = shown == value
        room = shown - SHOWN[0], SHOWN[1] - shown
        whiskers = [np.minimum(reach, left)[inside].clip(0) for reach, left in zip((below, above), room, strict=True)]
        axes.errorbar(x[inside], value[inside], whiskers, fmt="none", ecolor="#333333", elinewidth=1)
        if scale == "percent" and table[f"{variant}.percent_paper"].notna().any():
            paper = table[f"{variant}.percent_paper"].to_numpy(float)
            axes.plot(x, paper, "D", color="white", markeredgecolor="#111111", markersize=5, label=PAPER)
        for place, number in zip(x[~inside], value[~inside], strict=True):
            text, height = (f"{number:,.0f}", np.clip(number, *SHOWN)) if np.isfinite(number) else ("n/a", 0)
            style: dict[str, Any] = {"fontsize": 8, "color": "#444444", "rotation": 90 if len(variants) > 6 else 0}
            axes.annotate(text, (place, height), ha="center", va="bottom", **style)
    axes.axhline(100, color="#111111", linewidth=1, linestyle="--")
    axes.set_xticks(places, [title(game) for game in table["game"]])
    axes.tick_params(axis="x", length=0)


def scores_against(table: pd.DataFrame, series: Mapping[str, str], against: str) -> Figure:
    """Percentage of the teacher's score against a row of the table: a line a game, a thick one for the geometric mean.

    Args:
        series: what each variant has in common with those that differ from it in ``against`` alone: a panel each.
        against: ``parameters``, ``temperature``, ``logits_temperature`` or ``data``.
    """
    scale = shown_scale(table, list(series))
    names = list(dict.fromkeys(series.values()))
    with plt.rc_context(STYLE):
        figure, all_axes = panels([label(name) if name else "" for name in names], width=5.0, height=3.6)
        for axes, name in zip(all_axes, names, strict=True):
            variants = [variant for variant, own in series.items() if own == name]
            _lines(axes, table.set_index("game"), variants, against, scale)
            axes.set_ylabel(AXES[scale])
        lows, highs = zip(*(axes.get_ylim() for axes in all_axes), strict=True)
        plt.setp(all_axes, ylim=(max(min(lows), SHOWN[0]), min(max(highs), SHOWN[1])))  # panels are to be compared
        legend(figure, "outside right upper")
    return figure


def _lines(axes: Axes, rows: pd.DataFrame, variants: Sequence[str], against: str, scale: str) -> None:
    places = rows.loc[against, [f"{variant}.score" for variant in variants]].to_numpy(float)
    order = np.argsort(places, kind="stable")
    places, variants = places[order], [variants[index] for index in order]
    games = rows.index.drop([MEAN_ROW, against])
    for index, (game, colour) in enumerate(zip(games, colours(len(games)), strict=True)):
        share = 0.008 * (index - (len(games) - 1) / 2)  # of the axis, so that intervals do not hide each other
        beside = places * (places[-1] / places[0]) ** share
        found = [on_scale(rows.loc[[game]], variant, scale) for variant in variants]
        value, below, above = np.concatenate(found, axis=1)
        style: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 1, "elinewidth": 0.7}
        axes.errorbar(beside, value, [below, above], color=colour, label=title(game), **style)
    if scale == "percent":
        found = [on_scale(rows.loc[[MEAN_ROW]], variant, scale) for variant in variants]
        mean, below, above = np.concatenate(found, axis=1)
        paper = rows.loc[MEAN_ROW, [f"{variant}.percent_paper" for variant in variants]].to_numpy(float)
        if np.isfinite(mean).any() and len(games) > 1:
            style = {"fmt": "o-", "linewidth": 2.2, "elinewidth": 1.2, "zorder": 3}
            axes.errorbar(places, mean, [below, above], color="#111111", label="geometric mean", **style)
        if np.isfinite(paper).any():
            axes.plot(places, paper, "D", color="white", markeredgecolor="#111111", label=PAPER)
    axes.axhline(100, color="#111111", linewidth=1, linestyle="--")
    axes.set_xscale("log")
    ticks: dict[float, str] = {}
    for place, variant in zip(places, variants, strict=True):
        name = label(variant.split("/")[-1])  # the network
        ticks[place] = f"{ticks[place]}\n{name}" if place in ticks else name
    named = against == "parameters"
    axes.set_xticks(list(ticks), [f"{text}\n{at / 1e3:,.0f} k" if named else f"{at:g}" for at, text in ticks.items()])
    axes.minorticks_off()
    axes.set_xlabel(AXES[against])


def profiles(scores: pd.DataFrame) -> Figure:
    """Fraction of runs above each normalised score (Agarwal et al. 2021), a line a variant, with 95% bands.

    Args:
        scores: the long table. Over the games that every variant plays and that have normalised scores.
    """
    runs = scores[scores["role"] == "student"]
    variants = list(dict.fromkeys(runs["variant"]))
    usable = [
        game
        for game, rows in runs.groupby("game", sort=False)
        if set(rows["variant"]) == set(variants) and rows["normalised"].notna().all()
    ]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
        best = max(runs.loc[runs["game"].isin(usable), "normalised"], default=100.0)
        thresholds = np.linspace(0, np.clip(1.1 * best, 120, SHOWN[1]), 201)
        for variant, colour in zip(variants if usable else [], colours(len(variants)), strict=False):
            of_variant = runs[runs["variant"] == variant]
            games = [of_variant.loc[of_variant["game"] == game, "normalised"].to_numpy(float) for game in usable]
            low, high = stratified_bootstrap_interval(games, lambda drawn: performance_profile(drawn, thresholds))
            axes.fill_between(thresholds, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(thresholds, performance_profile(games, thresholds), color=colour, label=label(variant))
        if not usable:
            axes.annotate("no game has normalised scores", (0.5, 0.5), xycoords="axes fraction", ha="center")
        axes.axvline(100, color="#111111", linewidth=1, linestyle="--")
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(AXES["normalised"].replace("\n", " "))
        axes.set_ylabel("fraction of runs above")
        legend(figure)
    return figure
