"""What a Snakemake command says and a Snakefile is not told."""

from __future__ import annotations

from pathlib import Path

import pytest
from policy_distillation.command import Command, read_command

PROFILES = {
    "demo/config.yaml": "configfile: overrides.yaml\n",
    "demo/overrides.yaml": "{}",
    "list/config.yaml": "configfile: [some/a.yaml, b.yaml]\n",
    "cluster/config.yaml": '__use_yte__: true\njobs: ?1 + 1\nexecutor: slurm\n"default-resources": {mem_mb: 5}\n',
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in PROFILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "variable", "files"),
    [
        ("--profile demo -n all", None, ["demo/overrides.yaml"]),
        ("-n --profile=demo --configfile mine.yaml -- all", None, ["demo/overrides.yaml"]),
        ("--workflow-profile demo", None, ["demo/overrides.yaml"]),
        ("-n all", "demo", ["demo/overrides.yaml"]),
        ("--profile none", "demo", []),
        ("--profile list", "demo", ["some/a.yaml", "b.yaml"]),
        ("--profile demo --profile cluster", None, ["demo/overrides.yaml"]),
        ("--profile demo --profile list", None, ["some/a.yaml", "b.yaml"]),
        ("--profile nowhere", None, []),
        ("-c1 all --profile", None, []),
    ],
)
def test_a_profiles_overlay_is_found(folder: Path, arguments: str, variable: str | None, files: list[str]) -> None:
    environment = {} if variable is None else {"SNAKEMAKE_PROFILE": variable}
    assert read_command(arguments.split(), environment, folder).configfiles == [folder / file for file in files]


@pytest.mark.parametrize(
    ("arguments", "executor"),
    [
        ("-n all", "local"),
        ("--profile demo all", "local"),
        ("--profile cluster all", "slurm"),
        ("--profile cluster --profile demo all", "slurm"),
        ("--profile cluster --executor local all", "local"),
        ("-e kubernetes all", "kubernetes"),
        ("--executor=slurm -- all", "slurm"),
    ],
)
def test_the_executor_is_found(folder: Path, arguments: str, executor: str) -> None:
    assert read_command(arguments.split(), {}, folder).executor == executor


def test_what_snakemake_will_refuse_is_left_to_it(folder: Path) -> None:
    assert read_command(["--profile"], {}, folder) == Command("local", [], ["--profile"])


@pytest.mark.parametrize("report", ["--report results/index.html", "--report=results/index.html", "--report"])
def test_where_a_report_is_written_is_no_target(folder: Path, report: str) -> None:
    arguments = f"-c1 --forcerun a.csv b.csv {report} --profile demo".split()
    assert read_command(arguments, {}, folder).rest == ["-c1", "--forcerun", "a.csv", "b.csv"]
