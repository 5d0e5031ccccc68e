"""Every experiment that the check admits ends in tables and figures in which nothing is mixed up."""

from __future__ import annotations

import re
import runpy
import tempfile
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import hypothesis
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_distillation import cells, sidecar
from policy_distillation.checks import check_config
from policy_distillation.config import ConfigError
from policy_distillation.evaluate import Evaluation
from policy_distillation.grid import Grid
from test_config import CONFIG, ROOT, merge

# Names that once were another column's, or another cell's when joined.
NETWORKS: dict[str, Any] = {
    name: {"channels": [4, 4, 4], "hidden": hidden, **extra}
    for name, hidden, extra in [("c", 4, {"controller": 4}), ("b_c", 8, {"controller": 4}), ("low", 8, {})]
}
RECIPES: dict[str, Any] = {
    "kl": {"loss": "kl"},
    "kl_low": {"loss": "kl", "temperature": 1.0},
    "teacher": {"loss": "kl", "data": 0.1},
    "note": {"loss": "nll"},
    "game": {"loss": "mse"},
    "a": {"loss": "kl", "temperature": 0.5},
    "a_b": {"loss": "kl", "data": 0.5},
    "joint": {"loss": "q_learning"},
    **{f"r{index}": {"loss": "kl", "temperature": 0.01 * 2**index} for index in range(9)},
}
SETS = {"multi3": ["freeway", "pong", "qbert"], "two": ["pong", "breakout"], "one": ["qbert"]}
GAMES = ["breakout", "freeway", "pong", "qbert", *SETS]
TEACHERS = {"good": 100.0, "poor": -20.0, "zero": 0.0, "nearly zero": 0.03}
NAMES = ["x_curves", "teacher", "teachers", "took", "made"]
"""Of experiments: names of files and of the page's own sections."""
EPISODES = 8
PLAYED = asdict(Evaluation(EPISODES, EPISODES, epsilon=0.05))


def several(names: list[str], most: int) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), min_size=1, max_size=most, unique=True)


EXPERIMENTS = st.fixed_dictionaries(
    {
        "title": st.sampled_from(["Plain", "<script>alert(1)</script> & 100% $x$"]),
        "games": several(GAMES, 4),
        "recipes": several(list(RECIPES), 12),
        "networks": several(list(NETWORKS), 3),
        "seeds": st.sampled_from([[0], [3, 1], [0, 1, 2]]),
    },
    optional={"against": st.sampled_from(["parameters", "temperature", "data", "teacher"])},
)


def configured(name: str, experiment: dict[str, Any]) -> Grid:
    """The configuration with this experiment alone, or nothing if it is not admitted."""
    change = {"networks": NETWORKS, "recipes": RECIPES, "game_sets": SETS, "teacher": {"network": "low"}}
    grid = Grid({**merge(CONFIG, change), "experiments": {name: experiment}})
    try:
        check_config(grid.config)
    except ConfigError:
        hypothesis.reject()
    return grid


class Run:
    """The scripts of rules/results.smk on made-up scores in a folder."""

    def __init__(self, folder: Path, name: str, experiment: dict[str, Any], levels: dict[str, str], seed: int) -> None:
        self.results, self.name, self.experiment = folder, name, experiment
        self.grid, self.rng = configured(name, experiment), np.random.default_rng(seed)
        self.games = self.grid.games_of(experiment)
        self.means: dict[str, float] = {}
        self.data: dict[tuple[str, str], str] = {}
        for game in self.games:
            level = TEACHERS[levels[game]]
            spread = 0.0 if levels[game] == "zero" else 1.0
            self.score(self.grid.teacher_scores(game), level, spread, agent={"commit": "a", "network": NETWORKS["low"]})
            self.score(self.grid.random_scores(game), level - 10.0 if levels[game] == "poor" else 0.0, 0.1)
            if game != "freeway":  # a teacher from elsewhere has no curve
                self.curve(f"<results>/{game}.csv", "step", [game])
        for game, cell in cells.scored(self.grid, experiment):
            self.score(cell.scores(game), float(self.rng.normal(50, 300)), 20.0)
        for cell in cells.cells(experiment):
            unit = "step" if cell.recipe == "joint" else "update"
            self.curve(cell.curve, unit, self.grid.games_in(cell.games))

    def at(self, path: str) -> Path:
        found = Path(path.replace("<results>", str(self.results)))
        found.parent.mkdir(parents=True, exist_ok=True)
        return found

    def score(self, path: str, mean: float, spread: float, **facts: Any) -> None:
        returns = mean + spread * self.rng.standard_normal(EPISODES)
        columns = {"slot": np.arange(len(returns)), "episode": 0, "return": returns}
        pd.DataFrame(columns).to_csv(self.at(path), index=False)
        self.means[path] = returns.mean()
        agent = {"kind": "student", "commit": "a", "data": {}, "seed": 0}
        about = {"protocol": "paper2015", "agent": agent, "commit": "b", "evaluation": PLAYED}
        facts = {**about, **facts}
        sidecar.write_sidecar(self.at(path), facts)

    def curve(self, path: str, unit: str, games: list[str]) -> None:
        points = int(self.rng.integers(1, 4))
        columns = {f"return_{game}": self.rng.normal(size=points) for game in games}
        pd.DataFrame({unit: np.arange(1, points + 1), **columns}).to_csv(self.at(path), index=False)

    def script(self, name: str, inputs: Any, outputs: dict[str, str] | str, **params: Any) -> None:
        snakemake = SimpleNamespace(
            input=inputs,
            output=self.files([outputs])
            if isinstance(outputs, str)
            else SimpleNamespace(**{key: str(self.at(path)) for key, path in outputs.items()}),
            params=SimpleNamespace(**params),
            wildcards=SimpleNamespace(experiment=self.name),
            log=[str(self.results / "log")],
        )
        runpy.run_path(str(ROOT / f"workflow/scripts/{name}.py"), {"snakemake": snakemake})

    def files(self, paths: list[str]) -> list[str]:
        return [str(self.at(path)) for path in paths]

    def tables(self) -> None:
        inputs = SimpleNamespace(
            teachers=self.files([self.grid.teacher_scores(game) for game in self.games]),
            randoms=self.files([self.grid.random_scores(game) for game in self.games]),
            students=self.files([cell.scores(game) for game, cell in cells.scored(self.grid, self.experiment)]),
            paper=ROOT / "resources/paper_results.csv",
        )
        outputs = {"csv": "table", "scores": "scores", "aggregates": "aggregates"}
        outputs = {key: f"<results>/{kind}_{self.name}.csv" for key, kind in outputs.items()}
        self.script("table", inputs, outputs, facts=cells.table_facts(self.grid, self.experiment))

    def figures(self) -> None:
        table, long = (str(self.results / f"{kind}_{self.name}.csv") for kind in ("table", "scores"))
        folder, teachers = f"<results>/figures/{self.name}", [self.grid.teacher_scores(game) for game in self.games]
        taught = [game for game in cells.taught(self.grid, self.experiment) if game != "freeway"]
        drawn = cells.beside_teachers(self.grid, self.experiment)
        inputs = SimpleNamespace(table=table, students=self.files([cell.curve for cell in drawn]))
        inputs.teachers = self.files([f"<results>/{game}.csv" for game in taught])
        facts = cells.figure_facts(self.grid, self.experiment, drawn)
        self.script("figure", inputs, {"png": f"{folder}/scores.png"}, facts=facts, taught=taught)
        drawn = cells.with_curves(self.grid, self.experiment)
        inputs = SimpleNamespace(students=self.files([cell.curve for cell in drawn]), teachers=self.files(teachers))
        facts = cells.figure_facts(self.grid, self.experiment, drawn)
        self.script("figure_curves", inputs, {"png": f"{folder}/curves.png"}, facts=facts)
        if cells.has_profile(self.grid, self.experiment):
            self.script("figure_profile", [long], {"png": f"{folder}/profile.png"})

    def page(self) -> None:
        """Of this experiment alone, with all sections that a page can have."""
        scored = list(cells.scored(self.grid, self.experiment))
        figures = [f"{path}.svg" for path in cells.figures(self.grid, self.name)]
        self.at("<results>/benchmarks/page/x.tsv").write_text("s\tmax_rss\n1.0\t-\n")
        inputs = SimpleNamespace(
            tables=self.files([f"<results>/table_{self.name}.csv"]),
            figures=self.files(figures),
            teacher_curves=self.files(figures[:1]),
            scores=self.files([cell.scores(game) for game, cell in scored]),
            videos=[],
            template=ROOT / "workflow/report/page.html",
        )
        entry = {
            "name": self.name,
            "title": self.experiment["title"],
            "variants": list(cells.variants(self.grid, self.experiment)),
            "cells": [(game, cells.variant(self.grid, self.experiment, cell), [*cell]) for game, cell in scored],
            "figures": len(figures),
            "videos": 0,
        }
        facts = {"results": "results", "protocol": "paper2015"}
        benchmarks = self.results / "benchmarks"
        self.script("page", inputs, "<results>/index.html", experiments=[entry], facts=facts, benchmarks=benchmarks)

    def read(self, kind: str) -> pd.DataFrame:
        return pd.read_csv(self.results / f"{kind}_{self.name}.csv")


@pytest.fixture(autouse=True)
def fast() -> Any:
    """Figures in one format; a sidecar's provenance asks git and takes longer than the rest."""

    def draw(figure: Any, png: Path) -> None:
        figure.savefig(png.with_suffix(".svg"))
        plt.close(figure)

    made = {"hardware": {"cpu": "a processor", "gpu": None}, "software": {"python": "3"}}
    with (
        mock.patch("policy_distillation.figures.save_figure", draw),
        mock.patch.object(sidecar, "provenance", return_value=made),
    ):
        yield


@pytest.mark.slow
@hypothesis.settings(
    max_examples=12,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.generate],
)
@given(
    st.sampled_from(NAMES),
    EXPERIMENTS,
    st.fixed_dictionaries(dict.fromkeys(GAMES[:4], st.sampled_from(list(TEACHERS)))),
    st.integers(0, 9),
)
def test_every_admitted_experiment_ends_in_tables_figures_and_a_page(
    name: str, experiment: dict[str, Any], levels: dict[str, str], seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), name, experiment, levels, seed)
        run.tables()
        assert_nothing_is_mixed_up(run)
        run.figures()
        for figure in ("scores", "curves"):
            assert (run.results / f"figures/{name}/{figure}.svg").stat().st_size > 0
        for suffix in ("md", "tex"):
            assert "interquartile mean" in (run.results / f"table_{name}.{suffix}").read_text()
        run.page()
        page = (run.results / "index.html").read_text()
        for html in (page, (run.results / f"table_{name}.html").read_text()):
            assert "<script>" not in html
        places = re.findall(r' id="([^"]*)"', page)
        assert len(set(places)) == len(places)
        assert {"teachers", "took", "made"} < set(places)
        assert set(re.findall(r'href="#([^"]*)"', page)) <= set(places)


def assert_nothing_is_mixed_up(run: Run) -> None:
    """Each cell is one row of the long table, and each number of the wide one is made of its own cells."""
    table, long, aggregates = run.read("table").set_index("game"), run.read("scores"), run.read("aggregates")
    students = long[long["role"] == "student"].set_index(["games", "game", "recipe", "network", "seed"])
    expected = {
        (cell.games, game, *cell[1:]): cell.scores(game) for game, cell in cells.scored(run.grid, run.experiment)
    }
    assert students.index.is_unique
    assert set(students.index) == set(expected)
    shown = defaultdict(list)
    for key, path in expected.items():
        assert students.loc[key, "score"] == pytest.approx(run.means[path], rel=1e-4)
        shown[students.loc[key, "variant"], key[1]].append(run.means[path])
    # Several numbers of one variant on one game are its seeds' and nothing else's.
    assert {len(means) for means in shown.values()} == {len(run.experiment["seeds"])}
    for (variant, game), means in shown.items():
        assert table.loc[game, f"{variant}.score"] == pytest.approx(np.mean(means), rel=1e-4)
        for scale, prefix in (("percent", ""), ("normalised", "normalised_")):
            value, low, high = table.loc[
                game, [f"{variant}.{name}" for name in (scale, f"{prefix}low", f"{prefix}high")]
            ]
            assert np.isnan(value) or low <= value <= high
    variants = {variant for variant, _ in shown}
    assert set(aggregates["variant"]) == variants
    assert len(aggregates) == len(variants) * (2 * 4 + len(variants) - 1)


MINE = {"title": "Mine", "games": ["pong", "qbert"], "recipes": ["kl"], "networks": ["low"], "seeds": [0, 1]}
GOOD = dict.fromkeys(GAMES[:4], "good")


def test_cells_that_learnt_from_other_data_or_of_other_commits_are_told(tmp_path: Path) -> None:
    run = Run(tmp_path, "mine", MINE, GOOD, 0)
    run.tables()
    assert sidecar.read_sidecar(tmp_path / "table_mine.csv")["remarks"] == []
    digests = ["1" * 64, "2" * 64]
    listing = run.at(run.grid.dataset_list("pong"))
    listing.write_text("".join(f"{digest}  part.h5\n" for digest in digests))
    first, second = (cells.Cell("pong", "kl", "low", seed).scores("pong") for seed in (0, 1))
    run.score(first, 50.0, 1.0, agent={"commit": "a", "data": {"pong": digests}})
    second_agent = {"commit": "c", "begun_by": [{"commit": "b"}], "data": {"pong": digests[:1]}}
    run.score(second, 50.0, 1.0, agent={**second_agent, "settings": {"driver": "mix"}})
    run.tables()
    remarks = sidecar.read_sidecar(tmp_path / "table_mine.csv")["remarks"]
    assert not any("other data" in remark for remark in remarks)  # who drives has no more of the teacher's play
    run.score(second, 50.0, 1.0, agent=second_agent)
    run.score(run.grid.teacher_scores("qbert"), 100.0, 1.0, acting="sample")
    run.score(run.grid.teacher_scores("pong"), 100.0, 1.0, commit="d")
    run.score(run.grid.random_scores("pong"), 0.0, 1.0, commit="e")
    run.tables()
    remarks = sidecar.read_sidecar(tmp_path / "table_mine.csv")["remarks"]
    assert remarks == [
        "The teachers' policies are sampled, without epsilon: qbert.",
        "Students that act otherwise than their teacher (acting): qbert/kl/low/0 on qbert, qbert/kl/low/1 on qbert.",
        "Learnt from other data than there is now: pong/kl/low/1 on pong.",
        "Students were made by 3 different commits: a, b, c.",
        "Scores were made by 3 different commits: b, d, e.",
    ]
    for suffix in ("md", "html", "tex"):
        assert all(remark in (tmp_path / f"table_mine.{suffix}").read_text() for remark in remarks)


def test_cells_of_other_settings_than_now_are_told(tmp_path: Path) -> None:
    """Snakemake's own records, which would make them anew, may be gone. What an older file lacks is no difference."""
    run = Run(tmp_path, "mine", {**MINE, "recipes": ["kl", "joint"], "networks": ["c"], "seeds": [0]}, GOOD, 0)
    facts = cells.table_facts(run.grid, run.grid.config["experiments"]["mine"])

    def made(recipe: str, sizes: dict[str, Any] | None = None, **changes: Any) -> None:
        settings = {**facts["recipes"][f"pong/{recipe}"], **changes}
        network = {**facts["networks"]["c"], "kernels": [8, 4, 3], **(sizes or {})}
        agent = {"commit": "a", "settings": settings, "network": network}
        run.score(cells.Cell("pong", recipe, "c", 0).scores("pong"), 50.0, 1.0, agent=agent)

    def told() -> list[str]:
        run.tables()
        return [text for text in sidecar.read_sidecar(tmp_path / "table_mine.csv")["remarks"] if "settings" in text]

    made("kl"), made("joint")
    assert told() == []
    made("kl", temperature=0.5), made("joint", steps=7)
    (remark,) = told()
    assert remark.startswith(
        "Made under other settings than the configuration's: pong/kl/c/0 on pong, pong/joint/c/0 on pong; --forcerun"
    )
    made("kl"), made("joint", {"layer_norm": True})  # which the configuration's network does not name
    assert ": pong/joint/c/0 on pong; " in told()[0]


def test_sizes_are_a_percentage_of_the_teachers_that_were_scored(tmp_path: Path) -> None:
    """Not of the network that would be trained: an agent from elsewhere has one of its own."""
    run = Run(tmp_path, "mine", {**MINE, "networks": ["low", "c"], "against": "parameters"}, GOOD, 0)
    for network in ("low", "c"):
        for game in run.games:
            agent = {"commit": "a", "network": {**NETWORKS[network], "layer_norm": True}}
            run.score(run.grid.teacher_scores(game), 100.0, 1.0, agent=agent)
        run.tables()
        row = run.read("table").set_index("game").loc["parameters"]
        assert row[f"{network}.percent"] == 100
        assert row["low.percent"] > row["c.percent"]
    agent = {"commit": "a", "network": NETWORKS["low"]}
    run.score(run.grid.teacher_scores("pong"), 100.0, 1.0, agent=agent)
    run.tables()
    assert np.isnan(run.read("table").set_index("game").loc["parameters", "low.percent"])


def test_a_verdict_over_fewer_games_than_were_played_says_so(tmp_path: Path) -> None:
    claims = [{"says": "it is good", "variant": "kl", "margin": -90}]
    run = Run(tmp_path, "mine", {**MINE, "claims": claims}, {**GOOD, "qbert": "zero"}, 0)
    run.tables()
    said = (
        "The verdict on 'it is good' rests on 1 of 2 games: of the others the teacher is not clearly better than "
        "random play."
    )
    assert said in (tmp_path / "table_mine.md").read_text()
    assert sidecar.read_sidecar(tmp_path / "table_mine.csv")["remarks"] == [said]


def test_claims_of_no_variant_are_told(tmp_path: Path) -> None:
    claims = [{"says": "it is good", "variant": "kl/low"}, {"says": "it wins", "variant": "kl", "against": "mse"}]
    run = Run(tmp_path, "mine", {**MINE, "claims": claims}, GOOD, 0)
    run.tables()
    remarks = sidecar.read_sidecar(tmp_path / "table_mine.csv")["remarks"]
    assert remarks == ["Claims not judged, as their variants are not here (kl): it is good; it wins."]


@pytest.mark.parametrize(
    ("against", "idle"), [("temperature", "qbert"), ("logits_temperature", "pong"), ("data", None)]
)
def test_a_temperature_that_divides_nothing_is_told(tmp_path: Path, against: str, idle: str | None) -> None:
    """A set of a Q-learner and a PPO: each of the two temperatures is of one of them."""
    run = Run(tmp_path, "mine", {**MINE, "against": against}, GOOD, 0)
    for game, outputs in (("pong", "q_values"), ("qbert", "logits")):
        for seed in (0, 1):
            agent = {"commit": "a", "data": {}, "seed": seed, "teacher_outputs": {game: outputs}}
            run.score(cells.Cell(game, "kl", "low", seed).scores(game), 50.0, 1.0, agent=agent)
    run.tables()
    remarks = sidecar.read_sidecar(tmp_path / "table_mine.csv")["remarks"]
    told = [text for text in remarks if "changes nothing" in text]
    assert len(told) == bool(idle)
    assert all(text.startswith(f"{against} changes nothing on {idle}: ") for text in told)


def test_scores_that_were_altered_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, "mine", MINE, GOOD, 0)
    run.at(cells.Cell("pong", "kl", "low", 1).scores("pong")).write_text("return\n1000\n")
    with pytest.raises(SystemExit):
        run.tables()
    assert "altered since it was written" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"against": "temperature", "recipes": ["kl", "note"]}, "temperature means nothing to note, whose loss is nll"),
        ({"against": "data", "recipes": ["joint"]}, "data means nothing to joint, whose loss is q_learning"),
        ({"against": "teacher", "recipes": ["joint"]}, "teacher needs a recipe that learns from one"),
        ({"recipes": ["k" * 65]}, "is not allowed"),
    ],
)
def test_what_has_no_place_in_a_figure_is_refused(change: dict[str, Any], refusal: str) -> None:
    config = merge(CONFIG, {"networks": NETWORKS, "recipes": RECIPES})
    with pytest.raises(ConfigError, match=refusal) as caught:
        check_config({**config, "experiments": {"mine": {**MINE, **change}}})
    assert "\n" not in str(caught.value)
