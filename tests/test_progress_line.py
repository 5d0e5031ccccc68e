"""The workflow's progress line: what it counts, how it forecasts, and that Snakemake prints it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT
from snakemake_logger_plugin_progress import QUICK, Timetable

SNAKEFILE = """
rule all:
    input: "c"

rule one:
    output: "{name,[ab]}"
    shell: "touch {output}"

rule two:
    input: "a", "b"
    output: "c"
    shell: "%s"
"""


def snakemake(folder: Path, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "Snakefile").write_text(SNAKEFILE % command)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "XDG_CONFIG_HOME": str(folder / "xdg")}
    arguments = [sys.executable, "-m", "snakemake", "--cores", "1", "--logger", "progress", *options]
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_each_finished_job_is_a_line_and_all_else_is_silent(tmp_path):
    done = snakemake(tmp_path, "touch {output}")
    assert done.returncode == 0
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    times = r"of 4 jobs, \d+\.\d min, (less than a minute left|done)"
    patterns = [rf"  1 {times}: one [ab]", rf"  2 {times}: one [ab]", rf"  3 {times}: two ", rf"  4 {times}: all "]
    assert len(lines) == 4, done.stderr
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(patterns, lines, strict=True)), done.stderr
    assert "done" in lines[3]
    again = snakemake(tmp_path, "touch {output}")
    assert "Nothing to be done" in again.stderr


@pytest.mark.slow
def test_a_dry_run_says_how_many_jobs_of_which_rules_there_would_be(tmp_path):
    done = snakemake(tmp_path, "touch {output}", "--dry-run")
    assert [line for line in done.stderr.splitlines() if line.strip()] == ["4 jobs would run: one 2, two 1, all 1"]
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
def test_what_goes_wrong_is_reported_in_full(tmp_path):
    done = snakemake(tmp_path, "echo lost; false")
    assert done.returncode == 1
    assert "2 of 4 jobs" in done.stderr
    assert "Error in rule two" in done.stderr
    assert "echo lost; false" in done.stderr  # the command


def test_the_forecast_is_by_rule():
    table = Timetable(Counter(record=4, learn=2))
    assert table.seconds_left(0.0, at_once=2) == 6 * QUICK / 2
    table.start(0, "record", 0.0)
    table.start(1, "record", 0.0)
    table.finish(0, 60.0)
    assert table.seconds_left(60.0, at_once=2) == pytest.approx((2 + 2) * 60 / 2)  # learning is taken to last as long
    table.finish(1, 100.0)  # 80 seconds on average
    table.start(2, "learn", 100.0)
    table.finish(2, 130.0)
    assert table.seconds_left(130.0, at_once=1) == pytest.approx(2 * 80 + 30)
    table.start(3, "record", 130.0)
    assert table.seconds_left(150.0, at_once=2) == pytest.approx((80 + 30 + 60) / 2)
    table.start(4, "record", 150.0)
    table.start(5, "learn", 150.0)
    assert table.seconds_left(160.0, at_once=3) == pytest.approx(70)  # the longest of those that run
    assert table.seconds_left(1000.0, at_once=3) == 0.0
