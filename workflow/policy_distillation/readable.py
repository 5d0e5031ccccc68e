"""Tables for people: Markdown, LaTeX and HTML beside the CSV."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .files import atomic_path
from .tables import MEAN_ROW

IQM_ROW = "interquartile mean"


def label(variant: str) -> str:
    """A variant's name for people."""
    return ", ".join(part.upper() if part in ("mse", "nll", "kl") else part for part in variant.split("/"))


def of_teachers(table: pd.DataFrame, variants: Sequence[str]) -> pd.DataFrame:
    """As the paper has it: a cell a variant, ``score: percent [interval]``, and the paper's percentage beside it."""
    out = pd.DataFrame({"game": table["game"], "teacher": table["teacher"].map(number)})
    if table["teacher_paper"].notna().any():
        out["the paper's teacher"] = table["teacher_paper"].map(number)
    setting = table["game"].tolist().index(MEAN_ROW) + 1  # below the mean: what the variants differ in
    for variant in variants:
        out[f"{label(variant)}: % of teacher"] = [
            _cell(
                (number if place < setting else exact)(row[f"{variant}.score"]),
                *(row[f"{variant}.{part}"] for part in ("percent", "low", "high")),
            )
            for place, (_, row) in enumerate(table.iterrows())
        ]
        if table[f"{variant}.percent_paper"].notna().any():
            out[f"{label(variant)}: the paper's"] = table[f"{variant}.percent_paper"].map(number)
    if table["note"].astype(bool).any():
        out["note"] = table["note"]
    return out


def normalised(table: pd.DataFrame, variants: Sequence[str], aggregates: pd.DataFrame) -> pd.DataFrame:
    """The same on the scale from a random agent's score to the teacher's, with the interquartile mean below."""
    games = table[: table["game"].tolist().index(MEAN_ROW)]
    means = aggregates.query("metric == 'iqm' and scale == 'normalised'").set_index("variant")
    out = pd.DataFrame({"game": [*games["game"], IQM_ROW]})
    for agent in ("random", "teacher"):
        out[agent] = [*games[agent].map(number), ""]
    parts = ("normalised", "normalised_low", "normalised_high")
    for variant in variants:
        cells = [_cell("", *(row[f"{variant}.{part}"] for part in parts)) for _, row in games.iterrows()]
        mean = [float(means[part].to_dict()[variant]) for part in ("value", "low", "high")]
        out[f"{label(variant)}: % of the way"] = [*cells, _cell("", *mean)]
    return out


def judged(verdicts: pd.DataFrame) -> pd.DataFrame:
    """What each claim says, by how many points it is true, how many it takes, and the verdict."""
    ours, theirs = verdicts["variant"].map(label), verdicts["against"].map(label).replace("", "teachers")
    return pd.DataFrame(
        {
            "claim": verdicts["says"],
            "compared": ours + " - " + theirs,
            "points": [
                f"{difference:z.1f} [{low:z.1f}, {high:z.1f}]" if np.isfinite(difference) else ""
                for difference, low, high in verdicts[["difference", "low", "high"]].to_numpy(float)
            ],
            "needed": verdicts["margin"].map("more than {:g}".format),
            "verdict": verdicts["verdict"],
        }
    )


def _cell(score: str, percent: float, low: float, high: float) -> str:
    text = number(percent)
    if text and np.isfinite(low):
        text = f"{text} [{number(low)}, {number(high)}]"
    return f"{score}: {text}" if score and text else score or text


def number(value: float) -> str:
    """Empty for what is not a number."""
    if not np.isfinite(value):
        return ""
    if abs(value) >= 10_000 or (abs(value) >= 1_000 and float(value).is_integer()):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 0.1 or value == 0 else f"{value:.1g}"


def exact(value: float) -> str:
    """With all of its digits: a temperature, a fraction or a number of parameters."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"


HTML = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em }} table {{ border-collapse: collapse; margin: 1em 0 }}
th, td {{ padding: .35em .8em; text-align: right; border-bottom: 1px solid #ddd }}
th:first-child, td:first-child {{ text-align: left }} tr.mean {{ font-weight: 600 }}</style>
<h1>{title}</h1>
{body}
"""


def write_tables(tables: Mapping[str, pd.DataFrame], title: str, remarks: Sequence[str], csv: Path) -> None:
    """Write readable tables beside ``csv``, one below the other, as Markdown, LaTeX and HTML.

    Args:
        tables: by what is said above each.
        remarks: sentences for the end.
    """
    markdown, latex, page = [], [], []
    for caption, table in tables.items():
        cells = table.replace(r"\|", r"\|", regex=True)  # a claim's words are the user's
        markdown += [f"{caption}\n", cells.to_markdown(index=False, disable_numparse=True, stralign="right") + "\n"]
        latex += [f"% {caption}", table.to_latex(index=False, escape=True)]
        rows = table.to_html(index=False, border=0)
        for mean in (MEAN_ROW, IQM_ROW):
            rows = rows.replace(f"<tr>\n      <td>{mean}</td>", f'<tr class="mean">\n      <td>{mean}</td>')
        page += [f"<p>{html.escape(caption, quote=False)}</p>", rows]
    page += [f"<p>{html.escape(remark, quote=False)}</p>" for remark in remarks]
    texts = {
        ".md": "\n".join([*markdown, *(f"{remark}\n" for remark in remarks)]),
        ".tex": "\n".join([*latex, *(f"% {remark}" for remark in remarks)]) + "\n",
        ".html": HTML.format(title=html.escape(title, quote=False), body="\n".join(page)),
    }
    for suffix, text in texts.items():
        with atomic_path(csv.with_suffix(suffix)) as temporary:
            temporary.write_text(text, encoding="utf-8")
