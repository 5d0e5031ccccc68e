"""The environments that jobs and `make env` find on clusters."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import ROOT, Checkout

NOBODY = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]  # a user that /etc/passwd does not name


@pytest.mark.workflow
def test_jobs_without_a_home_without_a_name_and_with_packages_of_the_sites(tmp_path: Path) -> None:
    """A teacher is taken over, and a figure drawn. What docs/clusters.md asks for is set and nothing else."""
    if subprocess.run([*NOBODY, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this kernel gives no user namespace")
    copy = Checkout(tmp_path / "checkout")
    site = tmp_path / "site"
    site.mkdir()
    seen = tmp_path / "seen"
    (site / "sitecustomize.py").write_text(
        f"import os, sys; print(sys.argv[-1:], os.environ['PYTHONPATH'], file=open({str(seen)!r}, 'a'))"
    )
    experiments = dict.fromkeys(("compression", "multi_task_3", "online", "driver", "temperature", "data_size"))
    change = {"teacher": {"source": "reference"}, "experiments": {**experiments, "multi_task_10": None}}
    (copy.folder / "change.yaml").write_text(str(change).replace("'", "").replace("None", "null"))
    targets = ["results/smoke/figures/teacher_curves.png", "results/smoke/teachers/breakout/seed0/agent.safetensors"]
    done = subprocess.run(
        [*NOBODY, *copy.command("--configfile", "tests/smoke.yaml", "change.yaml", "--", *targets)],
        cwd=copy.folder,
        env={
            **{
                name: value
                for name, value in copy.environment().items()
                if name not in ("LOGNAME", "LNAME", "USERNAME")
            },
            **{"HOME": "/proc/nothing", "XDG_CACHE_HOME": str(tmp_path / "cache"), "USER": "me"},
            "PYTHONPATH": str(site),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for target in targets:
        assert (copy.folder / target).exists()
    scripts = [line for line in seen.read_text().splitlines() if ".snakemake/scripts" in line]
    assert len(scripts) == 2
    for line in scripts:
        paths = line.split("] ")[1].split(os.pathsep)
        assert paths[0] == str(copy.folder / "workflow")
        assert paths[-1] == str(site)


def wheel(folder: Path, name: str, number: str, code: str, *requires: str) -> None:
    """A package of one line, as pip finds it in a folder."""
    about = f"{name}-{number}.dist-info"
    metadata = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}",
        *(f"Requires-Dist: {other}" for other in requires),
    ]
    with zipfile.ZipFile(folder / f"{name}-{number}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(f"{about}/METADATA", "\n".join([*metadata, ""]))
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")


@pytest.mark.slow
def test_make_env_fills_its_own_folder_whatever_pip_is_told(tmp_path: Path) -> None:
    """With the one package of the lock that builds this one, and a torch that needs what the lock does not name, as the
    one that PyPI has for Linux needs CUDA's libraries; nothing else is fetched."""
    for name in ("Makefile", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "envs").mkdir()
    torch = version("torch").split("+")[0]
    (tmp_path / "envs/requirements.lock").write_text(f"setuptools=={version('setuptools')}\ntorch=={torch}\n")
    (tmp_path / "wheels").mkdir()
    wheel(tmp_path / "wheels", "torch", f"{torch}+stub", "import only_on_some_machines", "only_on_some_machines")
    wheel(tmp_path / "wheels", "only_on_some_machines", "1.0", "")
    links = " ".join(filter(None, [str(tmp_path / "wheels"), os.environ.get("PIP_FIND_LINKS")]))
    told = {"PIP_USER": "1", "PIP_TARGET": str(tmp_path / "elsewhere"), "PIP_PREFIX": "/nowhere"}
    done = subprocess.run(
        ["make", "env", f"PYTHON={sys.executable}"],
        cwd=tmp_path,
        env={**os.environ, **told, "PIP_FIND_LINKS": links},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (tmp_path / "elsewhere").exists()
    code = "import torch, policy_distillation; print(policy_distillation.__file__)"
    command = [tmp_path / ".venv/bin/python", "-c", code]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=True).stdout
    assert found == f"{tmp_path}/workflow/policy_distillation/__init__.py\n"


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process has no groups to keep together")
@pytest.mark.xdist_group("finished")
def test_groups_of_tests_are_kept_together(request: pytest.FixtureRequest) -> None:
    """pytest-xdist marks each test's name with its group; with a pytest that it does not know it does nothing."""
    assert request.node.nodeid.endswith("@finished")
