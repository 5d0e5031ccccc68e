"""What all figures share: their style, colours, panels, and how they are saved: PNG, PDF for papers, SVG for pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .files import atomic_path
from .tables import MEAN_ROW

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
TITLES = {"ms_pacman": "Ms. Pac-Man", "qbert": "Q*bert", "riverraid": "River Raid", MEAN_ROW: "geometric\nmean"}
PANELS_IN_A_ROW = 4
PAPER, TEACHER = "the paper's", "the teacher's"
"""In legends. No variant can be called so, as any recipe can be called ``teacher``."""


def title(game: str) -> str:
    """A game's name for people."""
    return TITLES.get(game, game.replace("_", " ").title())


def colours(count: int) -> list[Any]:
    """As many colours: the well-known seven while they last, then a spectrum."""
    if count <= len(COLOURS):
        return COLOURS[:count]
    return list(matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def panels(titles: Sequence[str], width: float = 3.2, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    """A figure of one panel a title, four in a row."""
    columns = min(len(titles), PANELS_IN_A_ROW)
    rows = math.ceil(len(titles) / columns)
    size = (1.2 + width * columns, 0.4 + height * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axes in grid.flat[len(titles) :]:
        axes.remove()
    for axes, text in zip(grid.flat, titles, strict=False):
        axes.set_title(text)
    return figure, list(grid.flat[: len(titles)])


def legend(figure: Figure, place: Any = "outside upper center") -> None:
    """One legend for all panels, each label once."""
    found = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if PAPER in found:
        found[PAPER] = found.pop(PAPER)  # last
    most = max(1, int(figure.get_figwidth() / (0.9 + 0.09 * max(map(len, found), default=0))))
    columns = math.ceil(len(found) / 24) if "right" in place else min(len(found), most)
    figure.legend(list(found.values()), list(found), loc=place, ncols=columns)


def save_figure(figure: Figure, png: Path) -> None:
    """Write ``png`` and the same as PDF and SVG beside it."""
    for suffix, metadata in ((".png", None), (".pdf", None), (".svg", {"Date": None})):
        with atomic_path(png.with_suffix(suffix)) as temporary, plt.rc_context(STYLE):
            figure.savefig(temporary, dpi=160, metadata=metadata)
    plt.close(figure)
