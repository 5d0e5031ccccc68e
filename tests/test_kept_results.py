"""Results that are kept in the repository: intact, and what docs/results.md says of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, Checkout
from policy_distillation.sidecar import read_sidecar

LAPTOP = ROOT / "resources/laptop"


def test_every_score_and_table_is_the_one_that_was_written() -> None:
    csvs = [path for path in LAPTOP.rglob("*.csv") if path.name != "progress.csv"]
    assert len(csvs) == 3 + 4 * (1 + 1 + 3)  # tables; four games' teacher, random play and three students
    for path in csvs:
        assert "-dirty" not in read_sidecar(path)["commit"]
    for path in LAPTOP.glob("students/*/*/*/*"):
        assert (path / "progress.csv").exists()


def test_the_page_shows_the_tables_numbers() -> None:
    table = pd.read_csv(LAPTOP / "table_single_task.csv").set_index("game")
    rows = re.findall(
        r"^\| (\S[^|]*) \| (\d*) ?\| ([\d.,]*) ?\| (.*) \|$", (ROOT / "docs/results.md").read_text(), re.M
    )
    shown = {
        game: (games, teacher, cells.split(" | ")) for game, games, teacher, cells in rows if cells.count("|") == 5
    }
    assert set(shown) == set(table.index)
    for game, (games, teacher, cells) in shown.items():
        row = table.loc[game]
        if games:
            path = LAPTOP / f"teachers/{game}/seed0/scores/{game}.csv"
            assert int(games) == len(pd.read_csv(path))
            assert teacher == f"{row['teacher']:,.{1 if row['teacher'] < 1000 else 0}f}"
        expected = [
            text
            for recipe in ("mse", "nll", "kl")
            for text in (
                f"{row[f'{recipe}.percent']:.1f} [{row[f'{recipe}.low']:.1f}, {row[f'{recipe}.high']:.1f}]",
                f"{row[f'{recipe}.percent_paper']:.1f}",
            )
        ]
        assert cells == expected, game


@pytest.mark.workflow
def test_a_kept_runs_tables_and_page_are_made_again_from_its_scores_alone(tmp_path: Path) -> None:
    copy = Checkout(tmp_path / "copy")
    shutil.copytree(LAPTOP, copy.folder / "resources/laptop", dirs_exist_ok=True)

    def redraw() -> subprocess.CompletedProcess[str]:
        command = ["make", "-f", ROOT / "Makefile", "-o", "env", "redraw", "RUN=laptop"]
        return subprocess.run(
            command, cwd=copy.folder, env=copy.environment(), capture_output=True, text=True, check=False
        )

    done, results = redraw(), copy.folder / "results/laptop"
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    kept = sorted(LAPTOP.glob("*.csv"))
    assert kept
    for path in kept:
        pd.testing.assert_frame_equal(pd.read_csv(path), pd.read_csv(results / path.name), rtol=1e-4)
    assert {path.relative_to(LAPTOP) for path in LAPTOP.rglob("*.png")} == {
        path.relative_to(results) for path in results.rglob("*.png")
    }
    assert (results / "index.html").exists()
    assert not [path for path in results.rglob("*") if path.suffix in (".safetensors", ".h5")]
    assert "results/laptop exists: move it away" in redraw().stdout
