"""Tables and figures: the paper's arithmetic, empty cells instead of nonsense, files that read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from policy_distillation.figures import learning_curves, online_curves, relative_scores, save_figure, scores_against
from policy_distillation.tables import MEAN_ROW, aggregate_table, experiment_table, write_table

ROOT = Path(__file__).resolve().parents[1]
PAPER = pd.read_csv(ROOT / "resources/paper_results.csv").query("experiment == 'single_task'")
GAMES = ["breakout", "freeway", "pong", "qbert"]
RECIPES = ["mse", "nll", "kl"]


def papers_own_table() -> pd.DataFrame:
    """The table made from the paper's scores, as if each were a single episode."""
    score = PAPER.set_index(["game", "agent"])["score"]
    teachers = {game: np.array([score[game, "dqn"]]) for game in GAMES}
    students = {(game, recipe): [np.array([score[game, recipe]])] for game in GAMES for recipe in RECIPES}
    return experiment_table(teachers, students, PAPER)


def test_the_papers_scores_give_the_papers_percentages() -> None:
    table = papers_own_table()
    for recipe in RECIPES:
        # Printed scores are rounded to 0.1, and Pong's is 16.2: so are percentages, to 0.4 there.
        assert np.allclose(table[f"{recipe}_percent"][:4], table[f"{recipe}_percent_paper"][:4], atol=0.5)
        assert np.allclose(table[recipe][:4], table[f"{recipe}_paper"][:4])
    mean = table.iloc[-1]
    assert mean["game"] == MEAN_ROW
    published = [mean[f"{recipe}_percent_paper"] for recipe in RECIPES]
    # Of the printed percentages; of the printed scores the last is 111.2, because Pong's 16.3 / 16.2 is 100.6.
    assert np.allclose(published, [78.96, 102.46, 111.27], atol=0.005)
    assert (table["note"] == "").all()


def test_a_teacher_without_a_positive_score_leaves_its_ratios_empty_and_says_why() -> None:
    teachers = {"pong": np.array([-20.0, -21.0]), "breakout": np.array([10.0])}
    students = {("pong", "kl"): [np.array([-19.0])], ("breakout", "kl"): [np.array([5.0])]}
    table = experiment_table(teachers, students, PAPER).set_index("game")
    assert table.loc["pong", "kl"] == -19.0
    assert table.loc["pong", ["kl_percent", "kl_low", "kl_high"]].isna().all()
    assert "not positive" in table.loc["pong", "note"]
    assert table.loc["breakout", "kl_percent"] == 50.0
    assert np.isnan(table.loc[MEAN_ROW, "kl_percent"])
    assert "no geometric mean for kl" in table.loc[MEAN_ROW, "note"]
    assert table.loc[MEAN_ROW, "kl_percent_paper"] == pytest.approx((100.9 * 94.7) ** 0.5)


def test_seeds_weigh_equally_and_unpublished_cells_stay_empty() -> None:
    students = {("seaquest", "kl_tau1"): [np.array([10.0, 10.0, 10.0]), np.array([20.0])]}
    table = experiment_table({"seaquest": np.array([30.0])}, students, PAPER)
    assert table["kl_tau1"][0] == 15.0
    assert table["kl_tau1_percent"][0] == 50.0
    assert np.isnan(table["teacher_paper"][0])
    assert np.isnan(table["kl_tau1_percent_paper"][0])


def test_written_files_say_the_same(tmp_path: Path) -> None:
    table = papers_own_table()
    write_table(table, RECIPES, "Single-task distillation", tmp_path / "table.csv")
    assert np.allclose(pd.read_csv(tmp_path / "table.csv")["kl"][:4], table["kl"][:4])
    markdown, latex, html = ((tmp_path / f"table.{suffix}").read_text() for suffix in ("md", "tex", "html"))
    assert len(markdown.splitlines()) == 2 + 5
    for text in (markdown, html):
        assert "7,112.8: 155.0 [155.0, 155.0]" in text
        assert "nan" not in text
    assert latex.count(r"\\") == 6
    assert r"KL: \% of teacher" in latex
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "table.html", "table.md", "table.tex"]


def test_figure_bars_marks_and_missing_values(tmp_path: Path) -> None:
    table = papers_own_table()
    table.loc[2, ["kl_percent", "kl_low", "kl_high"]] = np.nan
    figure = relative_scores(table, RECIPES)
    axes = figure.axes[0]
    heights = np.array([bar.get_height() for bar in axes.patches]).reshape(3, 5)
    assert np.allclose(heights[0], table["mse_percent"])
    assert heights[2, 2] == 0
    assert [text.get_text() for text in axes.texts] == ["n/a"]
    marks = [line.get_ydata() for line in axes.lines if line.get_marker() == "D"]
    assert np.allclose(marks, [table[f"{recipe}_percent_paper"] for recipe in RECIPES])
    save_figure(figure, tmp_path / "figure.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.pdf", "figure.png", "figure.svg"]
    assert "geometric" in (tmp_path / "figure.svg").read_text()  # as text, not as outlines


def test_learning_curves_draw_each_agent_and_the_teachers_level() -> None:
    rows = pd.DataFrame({"update": [1, 2], "return_pong": [3.0, 4.0]})
    figure = learning_curves({"pong": {"KL": rows, "MSE": rows}}, "update", {"pong": 5.0})
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["KL", "MSE", "teacher"]
    assert lines[0].get_ydata().tolist() == [3.0, 4.0]
    assert lines[2].get_ydata() == [5.0, 5.0]


def test_network_sizes_are_a_row_of_their_own_and_the_figures_axis() -> None:
    teachers = {"pong": np.array([20.0]), "qbert": np.array([100.0])}
    students = {
        ("pong", "dqn"): [np.array([20.0])],
        ("pong", "net3"): [np.array([10.0])],
        ("qbert", "dqn"): [np.array([121.0])],
        ("qbert", "net3"): [np.array([98.0])],
    }
    paper = pd.read_csv(ROOT / "resources/paper_results.csv").query("experiment == 'compression'")
    sizes = {"dqn": 1_693_362, "net3": 61_954, "teacher": 1_693_362}
    table = experiment_table(teachers, students, paper, {"parameters": sizes})
    assert table["game"].tolist() == ["pong", "qbert", MEAN_ROW, "parameters"]
    mean, sizes = table.iloc[2], table.iloc[3]
    assert mean["dqn_percent"] == pytest.approx(110)
    assert mean["net3_percent"] == pytest.approx(70)
    assert mean["net3_percent_paper"] == 83.9
    assert sizes["net3"] == 61_954
    assert round(sizes["net3_percent"]) == 4
    axes = scores_against(table, ["dqn", "net3"], "parameters").axes[0]
    thick = next(line for line in axes.lines if line.get_label() == "geometric mean")
    assert np.allclose(thick.get_xydata(), [[1_693_362, 110], [61_954, 70]])


def test_a_teacher_that_never_scored_is_called_out() -> None:
    students = {("freeway", "kl"): [np.array([0.0])]}
    table = experiment_table({"freeway": np.array([0.0, 0.0])}, students, PAPER)
    assert table["note"][0].startswith("THE TEACHER NEVER SCORED")


def test_aggregates_over_games_and_seeds() -> None:
    rng = np.random.default_rng(0)
    teachers = {"pong": np.array([20.0]), "qbert": np.array([100.0]), "freeway": np.array([0.0])}
    students = {}
    for variant, level in {"kl": 1.0, "mse": 0.5}.items():
        for game, best in {"pong": 20.0, "qbert": 100.0, "freeway": 30.0}.items():
            students[game, variant] = [best * (level + 0.02 * rng.standard_normal(8)) for _ in range(3)]
    table = aggregate_table(teachers, students).set_index("variant")
    assert table["resampled"].tolist() == ["seeds", "seeds"]
    for variant in ("kl", "mse"):
        seeds = [[100 * np.mean(run) / teachers[g][0] for run in students[g, variant]] for g in ("pong", "qbert")]
        assert table.loc[variant, "iqm"] == pytest.approx(np.mean(np.sort(np.ravel(seeds))[1:-1]))  # without Freeway
        assert table.loc[variant, "iqm_low"] <= table.loc[variant, "iqm"] <= table.loc[variant, "iqm_high"]
    assert table.loc["kl", "better_than_mse"] == 1.0
    assert table.loc["mse", "better_than_kl"] == 0.0
    one = aggregate_table(teachers, {key: runs[:1] for key, runs in students.items()}).set_index("variant")
    assert one["resampled"].tolist() == ["episodes", "episodes"]
    expected = [100 * np.mean(students[game, "kl"][0]) / teachers[game][0] for game in ("pong", "qbert")]
    assert one.loc["kl", "iqm"] == pytest.approx(np.mean(expected))
    longer = {**students, ("qbert", "kl"): [np.repeat(runs, 3) for runs in students["qbert", "kl"]]}
    more = aggregate_table(teachers, {key: runs[:1] for key, runs in longer.items()}).set_index("variant")
    assert more.loc["kl", "iqm"] == pytest.approx(np.mean(expected))  # games weigh the same, however many episodes
    assert more.loc["kl", "better_than_mse"] == one.loc["kl", "better_than_mse"]
    assert aggregate_table({"pong": np.array([-21.0])}, {("pong", "kl"): [np.array([-20.0])]}).empty


def test_temperatures_are_a_row_and_an_axis() -> None:
    students = {("pong", name): [np.array([value])] for name, value in {"kl": 20.0, "kl_tau1": 10.0}.items()}
    table = experiment_table({"pong": np.array([20.0])}, students, PAPER, {"temperature": {"kl": 0.01, "kl_tau1": 1}})
    row = table.iloc[-1]
    assert (row["game"], row["kl"], row["kl_tau1"]) == ("temperature", 0.01, 1)
    assert np.isnan(row["kl_percent"])
    axes = scores_against(table, ["kl", "kl_tau1"], "temperature").axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.01", "1"]


def test_online_curves_share_an_axis_and_state_their_unsteadiness() -> None:
    teacher = pd.DataFrame({"step": [10, 20, 30, 40], "return_pong": [0.0, 20.0, 0.0, 20.0]})
    student = pd.DataFrame({"update": [5, 10, 15, 20], "return_pong": [0.0, 10.0, 15.0, 20.0]})
    axes = online_curves({"pong": teacher}, {"pong": {"kl_online": student}}, points=4).axes[0]
    labels = [line.get_label() for line in axes.lines]
    assert labels == ["teacher: unsteadiness 100.0%", "kl_online: unsteadiness 33.3%"]
    assert [line.get_xdata()[-1] for line in axes.lines] == [1, 1]
