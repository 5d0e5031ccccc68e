"""Profiles: what they resolve to on one site and another, and that every key means something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
import yte
from conftest import ROOT, Checkout

SITE = ("SBATCH_ACCOUNT", "SBATCH_PARTITION", "GPU_PARTITION", "GPU_MODEL", "STUDENTS_PER_GPU")
STUDENT = "results/students/pong/kl/dqn/seed0"


@pytest.mark.parametrize(
    ("profile", "arguments", "variable", "cores"),
    [
        ("", "-n all", "", "all"),
        ("cores: 1\n", "--profile {} all", "", None),
        ("jobs: 2\ncores : 3", "-n --profile={} -- all", "", None),
        ("cores: 1\n", "all", "{}", None),
        ("jobs: 1\n", "--profile {} all", "", None),  # which is what Snakemake takes for the cores then
        ("jobs: 1\nexecutor: slurm\n", "--profile {} all", "", "all"),
        ("", "-j4 all", "", None),
        ("", "--jobs 4 --executor slurm all", "", "all"),
        ("cores: 1\n", "--profile nowhere all", "", "all"),
    ],
)
def test_all_cores_unless_a_profile_of_ones_own_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str, arguments: str, variable: str, cores: str | None
) -> None:
    """Snakemake lets profiles/default win over --profile, key by key, so it must leave the key out."""
    (tmp_path / "config.yaml").write_text(profile)
    monkeypatch.setattr("sys.argv", ["snakemake", *arguments.format(tmp_path).split()])
    monkeypatch.setenv("SNAKEMAKE_PROFILE", variable.format(tmp_path))
    with open(ROOT / "profiles/default/config.yaml") as file:
        options = yte.process_yaml(file, require_use_yte=True)
    assert options.get("cores") == cores
    assert options["rerun-triggers"] == ["mtime", "params", "input"]


def asked(checkout: Checkout, monkeypatch: pytest.MonkeyPatch, **site: str) -> dict[str, dict[str, str]]:
    """What a job of each rule asks of Slurm, as Snakemake plans it on a site."""
    for name in SITE:
        monkeypatch.delenv(name, raising=False)
    for name, value in site.items():
        monkeypatch.setenv(name, value)
    plan = checkout.snakemake("-n", "--profile", "slurm", f"{STUDENT}/scores/pong.csv")
    assert plan.returncode == 0, plan.stdout[-3000:]
    jobs = re.findall(r"^ *rule (\w+):.*?resources: (.*?)$", plan.stdout, re.M | re.S)
    return {rule: dict(entry.split("=", 1) for entry in resources.split(", ")) for rule, resources in jobs}


LEARNING, PLAYING = ("train_teacher", "distill_student"), ("dump_dataset", "evaluate_agent")


@pytest.mark.workflow
def test_jobs_ask_for_what_they_need_and_a_site_names_where_it_is(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = asked(checkout, monkeypatch)
    for rule in LEARNING:
        assert nowhere[rule]["gpu"] == "1"
        assert int(nowhere[rule]["runtime"]) <= 1440
    for rule in PLAYING:
        assert "gpu" not in nowhere[rule]
    for resources in nowhere.values():
        assert not {"slurm_partition", "slurm_account", "gpu_model", "gres"} & resources.keys()
        assert resources["slurm_extra"] == "--signal=TERM@120"
    # Names that Snakemake would take for Python: a number, and two of its functions.
    site = {"SBATCH_ACCOUNT": "123", "SBATCH_PARTITION": "all", "GPU_PARTITION": "max", "GPU_MODEL": "a100"}
    somewhere = asked(checkout, monkeypatch, **site)
    for rule in (*LEARNING, *PLAYING):
        assert somewhere[rule]["slurm_account"] == "123"
        assert somewhere[rule]["slurm_partition"] == ("max" if rule in LEARNING else "all")
        assert somewhere[rule].get("gpu_model") == ("a100" if rule in LEARNING else None)
        assert somewhere[rule]["mem_mb"] == nowhere[rule]["mem_mb"]
    packed = asked(checkout, monkeypatch, STUDENTS_PER_GPU="4", GPU_PARTITION="gpu", GPU_MODEL="a100")
    # A group adds up its members' GPUs, but not their gres.
    student = packed["distill_student"]
    assert (student["gpu"], student["gres"], student["slurm_partition"]) == ("0", "gpu:a100:1", "gpu")
    assert (packed["train_teacher"]["gpu"], packed["train_teacher"]["gpu_model"]) == ("1", "a100")


@pytest.mark.workflow
def test_every_key_of_a_profile_is_an_option_of_snakemake(checkout: Checkout) -> None:
    """Those of plugins that are not installed here begin with the plugin's name."""
    options = set(re.findall(r"--([a-z][a-z0-9-]+)", checkout.snakemake("--help").stdout))
    for path in sorted(ROOT.glob("profiles/*/config.yaml")):
        profile = yaml.safe_load(path.read_text())
        keys = {re.sub(r"^\?.*", "", key) for key in profile} - {"", "__use_yte__", "__definitions__"}
        assert keys
        assert not {key for key in keys - options if not key.startswith(f"{profile.get('executor')}-")}, path


def test_clusters_page_names_files_that_exist() -> None:
    page = ROOT / "docs/clusters.md"
    links = re.findall(r"\]\((\.\./[^)]+)\)", page.read_text())
    assert links
    assert all((page.parent / Path(link)).resolve().exists() for link in links)
