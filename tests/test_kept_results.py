"""Results that are kept in the repository: intact, and what docs/results.md says of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Checkout
from policy_distillation.cells import scored
from policy_distillation.grid import Grid
from policy_distillation.readable import judged, label
from policy_distillation.sidecar import read_sidecar
from policy_distillation.tables import MEAN_ROW
from test_config import shipped

KEPT = ("study", "whole", "paper_play", "ten_games", "online", "weak_teacher", "more_play")
STUDY, WHOLE, PAPER_PLAY, TEN, ONLINE, WEAK, MORE = (ROOT / "resources" / name for name in KEPT)


@pytest.mark.parametrize(
    ("run", "files"),
    [
        # Eight experiments' tables; ten games' teacher, random play, three seeds of four sizes; four games' two more
        # seeds of KL, five of two losses; three seeds of three students of three games, of advantages, of two networks
        # with layer normalisation, and on two games of four temperatures, two amounts of data and one that drives.
        (STUDY, 8 * 3 + 10 * (1 + 1 + 3 * 4) + 4 * (2 + 5 * 2) + 3 * 3 * 3 + 3 * 4 * (1 + 2) + 3 * 2 * (4 + 2 + 1)),
        (WHOLE, 2 * 3 + 1 + 1 + 6),
        # Five tables; four games' teacher, random play, three seeds of six students; four students of three games;
        # three seeds of two students of two games that learn by Adam, and of one that drives.
        (PAPER_PLAY, 5 * 3 + 4 * (1 + 1 + 3 * 6) + 4 * 3 + 3 * 2 * 2 + 3),
        (TEN, 2 * 3 + 10 * (1 + 1 + 3 + 1)),
        (ONLINE, 3 + 2 * (1 + 1 + 3 * 3)),
        (WEAK, 3 + 1 + 1 + 3 * 2),
        (MORE, 2 * 3 + 1 + 1 + 3 * 3),
    ],
)
def test_every_score_and_table_is_the_one_that_was_written(run: Path, files: int) -> None:
    csvs = [path for path in run.rglob("*.csv") if path.name != "progress.csv"]
    assert len(csvs) == files
    for path in csvs:
        assert "-dirty" not in read_sidecar(path)["commit"]
    for path in run.glob("students/*/*/*/*"):
        assert (path / "progress.csv").exists()


@pytest.mark.parametrize("run", KEPT)
def test_what_a_kept_run_is_drawn_from_is_what_is_kept(run: str) -> None:
    """No more, so that nothing is kept that no table shows, and no less, so that `make redraw` has all of it."""
    files = [f"profiles/{run}/{name}.yaml" for name in ("overrides", "kept")]
    grid = Grid(shipped(*(file for file in files if (ROOT / file).exists())))
    shown = {cell.scores(game) for each in grid.config["experiments"].values() for game, cell in scored(grid, each)}
    folder = ROOT / "resources" / run
    kept = {f"<results>/{path.relative_to(folder)}" for path in folder.glob("students/**/scores/*.csv")}
    assert kept == shown


def test_the_readme_shows_what_the_whole_way_gave() -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    losses, sizes = (pd.read_csv(WHOLE / f"table_{name}.csv").iloc[0] for name in ("single_task", "compression"))
    parts = ("percent", "low", "high")
    found = [(label(name), *(losses[f"{name}.{part}"] for part in parts)) for name in ("mse", "nll", "kl")]
    assert ", ".join("{} {:.0f} [{:.0f}, {:.0f}]".format(*each) for each in found) in text
    sizes = [f"{sizes[f'{name}.percent']:.0f}" for name in ("net1", "net2", "net3")]
    assert "{}, {} and {} for net1 to net3".format(*sizes) in text
    teacher = pd.read_csv(WHOLE / "teachers/pong/seed0/scores/pong.csv")["return"]
    assert f"{teacher.mean():.1f} ± {teacher.sem():.1f} points ({len(teacher)} games" in text


@pytest.mark.parametrize(
    ("run", "experiment", "heading"),
    [
        (STUDY, "single_task", "Four games, three losses"),
        (STUDY, "compression", "Smaller networks"),
        (STUDY, "multi_task_3", "One network for three games"),
        (PAPER_PLAY, "single_task", "Three losses from the paper's play"),
        (PAPER_PLAY, "compression", "Smaller networks from the paper's play"),
        (STUDY, "temperature", "Softmax temperature"),
        (STUDY, "advantages", "What MSE lacks"),
        (TEN, "multi_task_10", "One network for ten games"),
        (TEN, "updates", "Ten games with half the updates"),
        (ONLINE, "online", "Online distillation"),
        (PAPER_PLAY, "multi_task_3", "One network for three games from the paper's play"),
        (PAPER_PLAY, "optimizer", "Adam beside Muon"),
        (STUDY, "driver", "Who acts"),
        (STUDY, "data_size", "Amount of data"),
        (PAPER_PLAY, "driver", "Who acts, from the paper's play"),
        (WEAK, "weak_teacher", "Students of a weak teacher"),
        (STUDY, "layer_norm", "Layer normalisation"),
        (MORE, "more_play", "Twice the play, twice the updates"),
        (MORE, "more_play_norm", "Twice the play with layer normalisation"),
    ],
)
def test_the_page_shows_a_tables_numbers_and_the_claims_verdicts(run: Path, experiment: str, heading: str) -> None:
    section = (ROOT / "docs/results.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", section, re.M)]
    path = run / f"table_{experiment}.csv"
    table = pd.read_csv(path)
    variants = [name.removesuffix(".percent") for name in table.columns if name.endswith(".percent")]
    games = table[: table["game"].tolist().index(MEAN_ROW) + 1]
    for row in games.to_dict("records"):
        expected = []
        for variant in variants:
            percent, low, high, paper = (
                row[f"{variant}.{part}"] for part in ("percent", "low", "high", "percent_paper")
            )
            expected.append(f"{percent:.1f} [{low:.1f}, {high:.1f}]" if np.isfinite(percent) else "none")
            if table[f"{variant}.percent_paper"].notna().any():
                expected.append(f"{paper:.1f}" if np.isfinite(paper) else "")
        (found,) = (cells for cells in shown if cells[0] == row["game"] and len(cells) == 3 + len(expected))
        assert found[3:] == expected, row["game"]
        if row["game"] != MEAN_ROW:
            played = pd.read_csv(run / f"teachers/{row['game']}/seed0/scores/{row['game']}.csv")["return"]
            assert found[1:3] == [str(len(played)), f"{played.mean():,.{1 if played.mean() < 1000 else 0}f}"]
    told = [cells[:5] for cells in shown if cells[-1] in ("holds", "does not hold", "undecided")]
    assert told == judged(pd.DataFrame(read_sidecar(path)["claims"])).to_numpy().tolist()


def test_what_the_pages_say_between_the_tables_is_in_them() -> None:
    """Each number with an interval is one that is kept, to the digits shown, or its negative."""
    kept = [estimate for run in (STUDY, PAPER_PLAY, TEN, ONLINE, WEAK, MORE) for estimate in estimates(run)]
    kept += [tuple(-number for number in (value, high, low)) for value, low, high in kept]
    results, readme = (" ".join((ROOT / name).read_text().split()) for name in ("docs/results.md", "README.md"))
    told = [re.findall(STATED, text) for text in (results, readme.partition("**The study**")[2])]
    assert len(told[0]) > 100
    assert len(told[1]) > 10
    for stated in [*told[0], *told[1]]:
        digits = [len(number.partition(".")[2]) for number in stated]
        assert any(
            stated == tuple(f"{number:z.{places}f}" for number, places in zip(each, digits, strict=True))
            for each in kept
        ), stated


STATED = r"(-?\d[\d.]*)%?(?: (?:points|ahead|behind))* \[(-?[\d.]+), (-?[\d.]+)\]"
"""A number and its interval, in words or in a table."""


def estimates(run: Path) -> Iterator[tuple[float, float, float]]:
    """Value, low, high of all that the tables of a kept run hold."""
    for path in run.glob("table_*.csv"):
        table, sidecar = pd.read_csv(path), read_sidecar(path)
        for name in table.columns[table.columns.str.endswith(".percent")]:
            variant = name.removesuffix(".percent")
            for parts in (("percent", "low", "high"), ("normalised", "normalised_low", "normalised_high")):
                yield from table[[f"{variant}.{part}" for part in parts]].itertuples(index=False, name=None)
        for claim in sidecar["claims"] + sidecar["differences"]:
            yield claim["difference"], claim["low"], claim["high"]
        aggregates = pd.read_csv(path.with_name(path.name.replace("table_", "aggregates_")))
        yield from aggregates[["value", "low", "high"]].itertuples(index=False, name=None)


def test_the_page_shows_each_seed() -> None:
    section = (ROOT / "docs/results.md").read_text().split("\nSeeds apart, ")[1].split("| | MSE | NLL | KL |\n")[1]
    lines = section.split("\n\n")[0].splitlines()[1:]
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    students = pd.read_csv(STUDY / "scores_single_task.csv").query("role == 'student'")
    percent = students.pivot_table("percent", ["game", "seed"], "recipe")[["mse", "nll", "kl"]]
    means = percent.groupby("seed").agg(lambda values: np.exp(np.log(values).mean()))
    rows = [*percent.groupby("game"), (MEAN_ROW, means)]
    assert shown == [[game, *(", ".join(map("{:.1f}".format, seeds[loss])) for loss in seeds)] for game, seeds in rows]


@pytest.mark.workflow
def test_a_kept_runs_tables_and_page_are_made_again_from_its_scores_alone(tmp_path: Path) -> None:
    copy = Checkout(tmp_path / "copy")
    shutil.copytree(STUDY, copy.folder / "resources/study", dirs_exist_ok=True)

    def redraw() -> subprocess.CompletedProcess[str]:
        command = ["make", "-f", ROOT / "Makefile", "-o", "env", "redraw", "RUN=study"]
        return subprocess.run(
            command, cwd=copy.folder, env=copy.environment(), capture_output=True, text=True, check=False
        )

    done, results = redraw(), copy.folder / "results/kept/study"
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    kept = sorted(STUDY.glob("*.csv"))
    assert kept
    for path in kept:
        pd.testing.assert_frame_equal(pd.read_csv(path), pd.read_csv(results / path.name), rtol=1e-4)
    assert {path.relative_to(STUDY) for path in STUDY.rglob("*.png")} == {
        path.relative_to(results) for path in results.rglob("*.png")
    }
    assert (results / "index.html").exists()
    assert not [path for path in results.rglob("*") if path.suffix in (".safetensors", ".h5")]
    assert "results/kept/study exists: move it away" in redraw().stdout
    with open(results / "table_single_task.csv.json", "a") as claims:  # verdicts change where scores do not
        claims.write("\n")
    kept = ("--configfile", "profiles/study/kept.yaml")
    moved = ("--config", "results=results/kept/study")
    plan = copy.snakemake("-n", *moved, *kept, "--", "results/kept/study/index.html").stdout
    assert "rule page" in plan
    assert "rule table" not in plan
    plan = copy.snakemake("-n", *kept, "--", "results/study/table_single_task.csv").stdout
    assert "rule distill_student" in plan  # where the profile trains nothing is taken for done
