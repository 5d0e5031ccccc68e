"""Tables: from episodes to the paper's rows, with the paper's numbers beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .files import atomic_path
from .statistics import (
    Returns,
    geometric_mean,
    geometric_mean_interval,
    interquartile_mean,
    probability_of_improvement,
    relative_score,
    relative_score_interval,
    relative_score_samples,
    stratified_bootstrap_interval,
)

MEAN_ROW = "geometric mean"


def read_returns(path: Path) -> Returns:
    """The episode returns in a scores file."""
    return pd.read_csv(path)["return"].to_numpy(np.float64)


def experiment_table(
    teachers: Mapping[str, Returns],
    students: Mapping[tuple[str, str], Sequence[Returns]],
    paper: pd.DataFrame,
    against: Mapping[str, Mapping[str, float]] | None = None,
) -> pd.DataFrame:
    """A table like the paper's: one row a game, the geometric mean over games, and what the variants differ in.

    Args:
        teachers: episode returns by game.
        students: one array of episode returns per seed, by (game, variant); a variant is a loss, a network, ...
        paper: columns game, agent (a variant, or dqn), score, percent; a row for the geometric mean where the paper
            prints it without the games.
        against: rows to add below, by name; of each variant (and "teacher") the network's size, the temperature, ...

    Columns: game, teacher, teacher_paper (the paper's DQN); for each variant V: V (mean score), V_percent (of the
    teacher), V_low and V_high (95% bootstrap interval of the percentage), V_paper, V_percent_paper; note. What has no
    meaning is left empty and noted.
    """
    variants = list(dict.fromkeys(variant for _, variant in students))
    published = paper.set_index(["game", "agent"])
    rows: list[dict[str, object]] = []
    samples: dict[str, list[Returns]] = {variant: [] for variant in variants}
    for game, teacher in teachers.items():
        row: dict[str, object] = {"game": game, "teacher": float(np.mean(teacher))}
        row["teacher_paper"] = _published(published, game, "dqn", "score")
        row["note"] = ""
        if not np.any(teacher):
            row["note"] = "THE TEACHER NEVER SCORED: train it longer or otherwise before you distil it"
        elif np.mean(teacher) <= 0:
            row["note"] = "the teacher's mean score is not positive, so percentages mean nothing"
        for variant in variants:
            returns = students[game, variant]
            row[variant] = float(np.mean([np.mean(seed) for seed in returns]))
            row[f"{variant}_percent"] = relative_score(returns, teacher)
            row[f"{variant}_low"], row[f"{variant}_high"] = relative_score_interval(returns, teacher)
            samples[variant].append(relative_score_samples(returns, teacher, seed=len(rows)))
            row[f"{variant}_paper"] = _published(published, game, variant, "score")
            row[f"{variant}_percent_paper"] = _published(published, game, variant, "percent")
        row["note"] = row.pop("note")  # last
        rows.append(row)
    table = pd.DataFrame(rows)
    means: dict[str, object] = {"game": MEAN_ROW}
    missing = []
    for variant in variants:
        means[f"{variant}_percent"] = geometric_mean(table[f"{variant}_percent"].tolist())
        printed = _published(published, MEAN_ROW, variant, "percent")
        games = geometric_mean(table[f"{variant}_percent_paper"].tolist())
        means[f"{variant}_percent_paper"] = games if np.isnan(printed) else printed
        if np.isnan(geometric_mean(table[f"{variant}_percent"].tolist())):
            missing.append(variant)
        else:
            means[f"{variant}_low"], means[f"{variant}_high"] = geometric_mean_interval(samples[variant])
    means["note"] = (
        f"no geometric mean for {', '.join(missing)}: a percentage is empty or not positive" if missing else ""
    )
    footer = [means]
    for name, values in (against or {}).items():
        footer.append({"game": name, "note": "", **values})
        if "teacher" in values:
            footer[-1] |= {f"{variant}_percent": 100 * values[variant] / values["teacher"] for variant in variants}
    return pd.concat([table, pd.DataFrame(footer)], ignore_index=True)[table.columns]


def _published(paper: pd.DataFrame, game: str, agent: str, column: str) -> float:
    return float(paper[column].to_dict()[game, agent]) if (game, agent) in paper.index else float("nan")


def label(variant: str) -> str:
    """A variant's name for people."""
    return variant.upper() if variant in ("mse", "nll", "kl") else variant


def readable(table: pd.DataFrame, variants: Sequence[str]) -> pd.DataFrame:
    """The same table for people: a cell a variant, ``score: percent [interval]``, the paper's percentage beside it."""
    out = pd.DataFrame({"game": table["game"]})
    out["teacher"] = [_number(value) for value in table["teacher"]]
    if table["teacher_paper"].notna().any():
        out["teacher, paper"] = [_number(value) for value in table["teacher_paper"]]
    for variant in variants:
        out[f"{label(variant)}: % of teacher"] = [_percent(row, variant) for _, row in table.iterrows()]
        if table[f"{variant}_percent_paper"].notna().any():
            out[f"{label(variant)}, paper"] = [_number(value) for value in table[f"{variant}_percent_paper"]]
    if table["note"].astype(bool).any():
        out["note"] = table["note"]
    return out


def _percent(row: pd.Series, variant: str) -> str:
    percent, low, high = (row[f"{variant}_{part}"] for part in ("percent", "low", "high"))
    text = _number(percent)
    if text and np.isfinite(low):
        text = f"{text} [{_number(low)}, {_number(high)}]"
    score = _number(row[variant])
    return f"{score}: {text}" if score and text else score or text


def _number(value: float) -> str:
    if not np.isfinite(value):
        return ""
    if abs(value) >= 10_000 or (abs(value) >= 1_000 and float(value).is_integer()):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 0.1 or value == 0 else f"{value:.1g}"


def aggregate_table(
    teachers: Mapping[str, Returns], students: Mapping[tuple[str, str], Sequence[Returns]]
) -> pd.DataFrame:
    """Aggregates over games and seeds (Agarwal et al. 2021), in percent of the teachers' scores: a row a variant.

    Columns: variant; seeds; resampled: ``seeds``, or ``episodes`` where there is one seed, and then the interval says
    nothing about another training run; iqm (interquartile mean), iqm_low and iqm_high (95% stratified bootstrap);
    better_than_V for each other variant V: the chance that a run (with one seed: a game played) of the row's variant
    beats one of V's. Games whose teacher's mean is not positive are left out.
    """
    variants = list(dict.fromkeys(variant for _, variant in students))
    games = [game for game, teacher in teachers.items() if np.mean(teacher) > 0]
    scores: dict[str, list[Returns]] = {}
    rows: list[dict[str, object]] = []
    for variant in variants if games else []:
        seeds = min(len(students[game, variant]) for game in games)
        scores[variant] = []
        for game in games:
            runs = students[game, variant][:seeds]
            values = np.array([np.mean(run) for run in runs]) if seeds > 1 else runs[0]
            scores[variant].append(100.0 * values / np.mean(teachers[game]))
        # With one seed the runs are episodes, which only tell how well each game's mean is known.
        metric = _iqm_of_runs if seeds > 1 else _iqm_of_means
        low, high = stratified_bootstrap_interval(scores[variant], metric)
        rows.append({"variant": variant, "seeds": seeds, "resampled": "seeds" if seeds > 1 else "episodes"})
        rows[-1] |= {"iqm": metric(scores[variant]), "iqm_low": low, "iqm_high": high}
    for row in rows:
        for other in variants:
            if other != row["variant"]:
                row[f"better_than_{other}"] = probability_of_improvement(scores[str(row["variant"])], scores[other])
    return pd.DataFrame(rows)


def _iqm_of_runs(scores: Sequence[Returns]) -> float:
    return interquartile_mean(np.concatenate(scores))


def _iqm_of_means(scores: Sequence[Returns]) -> float:
    return interquartile_mean(np.array([np.mean(runs) for runs in scores]))


HTML = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em }} table {{ border-collapse: collapse }}
th, td {{ padding: .35em .8em; text-align: right; border-bottom: 1px solid #ddd }}
th:first-child, td:first-child {{ text-align: left }} tr:last-child {{ font-weight: 600 }}</style>
<h1>{title}</h1>
{table}
<p>Mean score: percentage of the teacher's [95% interval]. Paper: Rusu et al., ICLR 2016.</p>
"""


def write_table(table: pd.DataFrame, variants: Sequence[str], title: str, csv: Path) -> None:
    """Write the table to ``csv`` and, in readable form, beside it as Markdown, LaTeX and HTML."""
    pretty = readable(table, variants)
    texts = {
        ".csv": table.to_csv(index=False, float_format="%.6g"),
        ".md": pretty.to_markdown(index=False, disable_numparse=True, stralign="right") + "\n",
        ".tex": pretty.to_latex(index=False, escape=True),
        ".html": HTML.format(title=title, table=pretty.to_html(index=False, border=0)),
    }
    for suffix, text in texts.items():
        with atomic_path(csv.with_suffix(suffix)) as temporary:
            temporary.write_text(text, encoding="utf-8")
