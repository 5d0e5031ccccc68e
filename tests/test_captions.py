"""Captions of Snakemake's report: each speaks of its own experiment."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from policy_distillation import cells
from policy_distillation.grid import Grid
from test_config import CONFIG, ROOT, merge

GRID = Grid(CONFIG)
AGAINST = {
    "parameters": ("holds the networks' parameters", "against the size of the network"),
    "temperature": ("holds the temperature", "against the temperature of the teacher's softmax"),
    "data": ("holds the fraction of the data", "against the fraction of the data that is learnt from"),
    "teacher": ("", "unsteadiness: the mean change"),
}
"""What an experiment's table and its figure say of what its variants differ in."""


def caption(name: str, **snakemake: Any) -> str:
    """As Snakemake renders it, in single spaces."""
    text = (ROOT / f"workflow/report/{name}.rst").read_text(encoding="utf-8")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    return " ".join(environment.from_string(text).render(snakemake=SimpleNamespace(**snakemake)).split())


def of(name: str, facts: dict[str, Any]) -> str:
    return caption(name, params=SimpleNamespace(facts=facts))


@pytest.mark.parametrize("name", CONFIG["experiments"])
def test_a_caption_speaks_of_its_own_experiment(name: str) -> None:
    experiment = CONFIG["experiments"][name]
    captions = {
        "table": of("table", cells.table_facts(GRID, experiment)),
        "figure": of("figure", cells.figure_facts(GRID, experiment, cells.beside_teachers(GRID, experiment))),
    }
    own = AGAINST.get(experiment.get("against", ""), ("", ""))
    for kind, text in captions.items():
        index = list(captions).index(kind)
        said = {words[index] for words in AGAINST.values() if words[index] and words[index] in text}
        assert said == {own[index]} - {""}
        assert ("last row" in text) == bool(own[0] and kind == "table")
        assert "the ." not in text
    if not experiment.get("against"):
        assert all(variant in captions["figure"] for variant in cells.variants(GRID, experiment))


def test_the_introduction_says_how_many_episodes_of_which_game() -> None:
    assert "returns of 128 episodes with epsilon 0.05, except of policies that are sampled. The" in caption(
        "workflow", config=CONFIG
    )
    games = {"qbert": {"episodes": 256}, "pong": {"episodes": 64}}
    config = merge(CONFIG, {"evaluation": {"games": games, "starts": "teacher"}})
    text = caption("workflow", config=config)
    assert "returns of 128 episodes (qbert: 256, pong: 64) with epsilon 0.05, " in text
    assert text.endswith("up to 30 no-ops, or where the teacher left off.")
