"""Tables: from episodes to the paper's rows, with the paper's numbers beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .checkpoints import atomic_path
from .statistics import Returns, geometric_mean, relative_score, relative_score_interval

MEAN_ROW = "geometric mean"


def read_returns(path: Path) -> Returns:
    """The episode returns in a scores file."""
    return pd.read_csv(path)["return"].to_numpy(np.float64)


def single_task_table(
    teachers: Mapping[str, Returns],
    students: Mapping[tuple[str, str], Sequence[Returns]],
    paper: pd.DataFrame,
) -> pd.DataFrame:
    """Table 1 of the paper: one row a game, then the geometric mean over games.

    Args:
        teachers: episode returns by game.
        students: one array of episode returns per seed, by (game, recipe).
        paper: columns game, agent, score, percent.

    Columns: game, dqn, dqn_paper; for each recipe R: R (mean score), R_percent (of the teacher), R_low and R_high (95%
    bootstrap interval of the percentage), R_paper, R_percent_paper; note. What has no meaning is left empty and noted.
    """
    recipes = list(dict.fromkeys(recipe for _, recipe in students))
    published = paper.set_index(["game", "agent"])
    rows = []
    for game, teacher in teachers.items():
        row: dict[str, object] = {"game": game, "dqn": float(np.mean(teacher))}
        row["dqn_paper"] = _published(published, game, "dqn", "score")
        notes = []
        if np.mean(teacher) <= 0:
            notes.append("the teacher's mean score is not positive, so percentages mean nothing")
        for recipe in recipes:
            returns = students[game, recipe]
            row[recipe] = float(np.mean([np.mean(seed) for seed in returns]))
            row[f"{recipe}_percent"] = relative_score(returns, teacher)
            row[f"{recipe}_low"], row[f"{recipe}_high"] = relative_score_interval(returns, teacher)
            row[f"{recipe}_paper"] = _published(published, game, recipe, "score")
            row[f"{recipe}_percent_paper"] = _published(published, game, recipe, "percent")
        row["note"] = "; ".join(notes)
        rows.append(row)
    table = pd.DataFrame(rows)
    means: dict[str, object] = {"game": MEAN_ROW}
    missing = []
    for recipe in recipes:
        for column in (f"{recipe}_percent", f"{recipe}_percent_paper"):
            means[column] = geometric_mean(table[column].tolist())
        if np.isnan(geometric_mean(table[f"{recipe}_percent"].tolist())):
            missing.append(recipe)
    means["note"] = (
        f"no geometric mean for {', '.join(missing)}: a percentage is empty or not positive" if missing else ""
    )
    return pd.concat([table, pd.DataFrame([means])], ignore_index=True)[table.columns]


def _published(paper: pd.DataFrame, game: str, agent: str, column: str) -> float:
    return float(paper[column].to_dict()[game, agent]) if (game, agent) in paper.index else float("nan")


def readable(table: pd.DataFrame, recipes: Sequence[str]) -> pd.DataFrame:
    """The same table for people: one cell a recipe, ``score (percent, interval)``, the paper's percentage beside it."""
    out = pd.DataFrame({"game": table["game"]})
    out["DQN"] = [_number(value) for value in table["dqn"]]
    out["DQN, paper"] = [_number(value) for value in table["dqn_paper"]]
    for recipe in recipes:
        out[f"{recipe.upper()} % of DQN"] = [_percent(row, recipe) for _, row in table.iterrows()]
        out[f"{recipe.upper()}, paper"] = [_number(value) for value in table[f"{recipe}_percent_paper"]]
    if table["note"].astype(bool).any():
        out["note"] = table["note"]
    return out


def _percent(row: pd.Series, recipe: str) -> str:
    percent, low, high = (row[f"{recipe}_{part}"] for part in ("percent", "low", "high"))
    text = _number(percent)
    if text and np.isfinite(low):
        text = f"{text} [{_number(low)}, {_number(high)}]"
    score = _number(row[recipe])
    return f"{score}: {text}" if score and text else score or text


def _number(value: float) -> str:
    return "" if not np.isfinite(value) else f"{value:,.1f}"


HTML = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em }} table {{ border-collapse: collapse }}
th, td {{ padding: .35em .8em; text-align: right; border-bottom: 1px solid #ddd }}
th:first-child, td:first-child {{ text-align: left }} tr:last-child {{ font-weight: 600 }}</style>
<h1>{title}</h1>
{table}
<p>Score: percentage of the teacher's score [95% interval]. Paper: Rusu et al., ICLR 2016.</p>
"""


def write_table(table: pd.DataFrame, recipes: Sequence[str], title: str, csv: Path) -> None:
    """Write the table to ``csv`` and, in readable form, beside it as Markdown, LaTeX and HTML."""
    pretty = readable(table, recipes)
    texts = {
        ".csv": table.to_csv(index=False, float_format="%.6g"),
        ".md": pretty.to_markdown(index=False, disable_numparse=True, stralign="right") + "\n",
        ".tex": pretty.to_latex(index=False, escape=True),
        ".html": HTML.format(title=title, table=pretty.to_html(index=False, border=0)),
    }
    for suffix, text in texts.items():
        with atomic_path(csv.with_suffix(suffix)) as temporary:
            temporary.write_text(text, encoding="utf-8")
