"""Profiles: what they resolve to on one site and another, and that every key means something."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
import yte
from conftest import ROOT, Checkout

SITE = ("SBATCH_ACCOUNT", "SBATCH_PARTITION", "GPU_PARTITION", "GPU_MODEL", "STUDENTS_PER_GPU")
# snakemake-executor-plugin-kubernetes 0.5.1, snakemake-storage-plugin-s3 0.3.6
KUBERNETES = {
    *("kubernetes-namespace", "kubernetes-cpu-scalar", "kubernetes-service-account-name", "kubernetes-privileged"),
    "kubernetes-persistent-volumes",
}


def slurm(monkeypatch: pytest.MonkeyPatch, **site: str) -> dict[str, Any]:
    for name in SITE:
        monkeypatch.delenv(name, raising=False)
    for name, value in site.items():
        monkeypatch.setenv(name, value)
    with open(ROOT / "profiles/slurm/config.yaml") as file:
        profile: dict[str, Any] = yte.process_yaml(file, require_use_yte=True)
    return profile


@pytest.mark.parametrize(
    ("profile", "arguments", "variable", "cores"),
    [
        ("", "-n all", "", "all"),
        ("cores: 1\n", "--profile {} all", "", None),
        ("jobs: 2\ncores : 3", "-n --profile={} -- all", "", None),
        ("cores: 1\n", "all", "{}", None),
        ("jobs: 1\n", "--profile {} all", "", "all"),
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


def gpu_rules() -> set[str]:
    text = "\n".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    rules = re.split(r"^rule (\w+):", text, flags=re.M)
    return {
        name for name, body in zip(rules[1::2], rules[2::2], strict=True) if re.search(r"^        gpu=1,", body, re.M)
    }


def test_without_a_site_nothing_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = slurm(monkeypatch)
    assert set(profile["default-resources"]) == {"slurm_extra"}
    assert "set-resources" not in profile  # an empty one is refused by Snakemake
    assert "groups" not in profile
    assert profile["slurm-status-command"] == "squeue"
    assert profile["retries"] >= 2
    assert profile["keep-going"] is profile["slurm-keep-successful-logs"] is profile["slurm-requeue"] is True


def test_the_site_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = slurm(monkeypatch, SBATCH_ACCOUNT="123", SBATCH_PARTITION="all", GPU_PARTITION="max", GPU_MODEL="a100")
    # Quoted, since Snakemake would take them for Python: a number, and two of its functions.
    assert profile["default-resources"]["slurm_account"] == "'123'"
    assert profile["default-resources"]["slurm_partition"] == "'all'"
    assert set(profile["set-resources"]) == gpu_rules()
    for resources in profile["set-resources"].values():
        assert resources == {"slurm_partition": "'max'", "gpu_model": "'a100'"}


def test_packing_asks_for_one_gpu_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = slurm(monkeypatch, STUDENTS_PER_GPU="4", GPU_PARTITION="gpu", GPU_MODEL="a100")
    assert profile["group-components"] == {profile["groups"]["distill_student"]: 4}
    student = profile["set-resources"]["distill_student"]
    assert student == {"gpu": 0, "gres": "'gpu:a100:1'", "slurm_partition": "'gpu'"}
    assert profile["set-resources"]["train_teacher"] == {"slurm_partition": "'gpu'", "gpu_model": "'a100'"}


@pytest.mark.workflow
@pytest.mark.xdist_group("workflow")
def test_every_key_of_the_kubernetes_profile_is_known(checkout: Checkout) -> None:
    profile = yaml.safe_load((ROOT / "profiles/kubernetes/config.yaml").read_text())
    options = set(re.findall(r"--([a-z][a-z0-9-]+)", checkout.snakemake("--help").stdout))
    unknown = set(profile) - options - KUBERNETES
    assert not unknown
    assert profile["executor"] == "kubernetes"
    assert profile["default-resources"]["gpu_manufacturer"] == "nvidia"
    for key in ("container-image", "default-storage-prefix"):
        assert re.search(r"\$(IMAGE|BUCKET)\b", profile[key])


def test_clusters_page_names_files_that_exist() -> None:
    page = ROOT / "docs/clusters.md"
    links = re.findall(r"\]\((\.\./[^)]+)\)", page.read_text())
    assert links
    assert all((page.parent / Path(link)).resolve().exists() for link in links)
