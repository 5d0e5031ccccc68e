"""The installed package: what `pip install` of a checkout or a git URL gives, away from the checkout."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from functools import cache
from importlib.metadata import Distribution, packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "workflow" / "policy_distillation"
SCRIPTS = ROOT / "workflow" / "scripts"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
AGENT = ROOT / "resources" / "teachers" / "freeway" / "agent.safetensors"


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Installed:
    """This project, installed by pip from a git URL into an empty folder; nothing else of it is importable."""

    def __init__(self, folder: Path) -> None:
        self.folder, source, self.target = folder, folder / "source", folder / "target"
        shutil.copytree(PACKAGE, source / "workflow/policy_distillation", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source / name)
        run("git", "init", "--quiet", cwd=source)
        run("git", "add", "--all", cwd=source)
        run("git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "--message=all", cwd=source)
        self.commit = run("git", "rev-parse", "HEAD", cwd=source).strip()
        options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", self.target)
        run(sys.executable, "-m", "pip", "install", *options, f"git+file://{source}", cwd=folder, HOME=str(folder))

    def python(self, *arguments: str | Path) -> str:
        """Without `site`, so that an editable installation of the checkout is not found."""
        path = f"{self.target}:{sysconfig.get_path('platlib')}"
        return run(sys.executable, "-S", *arguments, cwd=self.folder, PYTHONPATH=path, OMP_NUM_THREADS="1")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"))


@pytest.mark.slow
def test_all_modules_and_schemas_are_installed(installed):
    files = {
        path.relative_to(PACKAGE)
        for pattern in ("*.py", "*.yaml", "py.typed")
        for path in PACKAGE.rglob(pattern)
        if "__pycache__" not in path.parts
    }
    assert len(files) > 30
    root = installed.target / "policy_distillation"
    have = {path.relative_to(root) for path in root.rglob("*")}
    assert files <= have, files - have
    program = """
import pkgutil, importlib, policy_distillation
names = [module.name for module in pkgutil.walk_packages(policy_distillation.__path__, "policy_distillation.")]
for name in names:
    if not name.endswith("__main__"):
        print(importlib.import_module(name).__file__)
"""
    places = installed.python("-c", program).split()
    assert len(places) > 25
    assert all(Path(place).is_relative_to(installed.target) for place in places), places


def test_an_installed_package_loads_an_agent_and_acts(installed):
    program = f"""
import numpy as np
from policy_distillation import load_agent
from policy_distillation.config import SCHEMA
from policy_distillation.importing import mappings
from policy_distillation.provenance import provenance
assert SCHEMA.exists() and mappings.SCHEMA.exists()
agent, metadata = load_agent({str(AGENT)!r})
actions, _ = agent.predict(np.zeros((3, 4, 84, 84), np.uint8), deterministic=True)
print(actions.shape, metadata["games"], provenance()["commit"])
"""
    assert installed.python("-c", program) == f"(3,) ['freeway'] {installed.commit}\n"


@pytest.mark.slow
def test_the_console_script_runs(installed):
    found = installed.python(installed.target / "bin" / "policy-distillation", "inspect", AGENT)
    assert json.loads(found)["games"] == ["freeway"]


def test_looking_at_the_package_does_not_load_torch():
    program = "import sys, policy_distillation; print('torch' in sys.modules, hasattr(policy_distillation, 'x'))"
    assert run(sys.executable, "-c", program, cwd=ROOT, PYTHONPATH=str(PACKAGE.parent)) == "False False\n"


def test_what_is_done_where_the_workflow_runs_does_not_load_torch():
    """It takes longer than tables, figures, page and lists do."""
    scripts = [*SCRIPTS.glob("figure*.py"), *(SCRIPTS / f"{name}.py" for name in ("table", "page", "list_parts"))]
    bodies = [ast.parse(path.read_text()).body for path in scripts]
    lines = {ast.unparse(node) for body in bodies for node in body if isinstance(node, ast.Import | ast.ImportFrom)}
    assert any("policy_distillation.sidecar" in line for line in lines)
    program = "\n".join([*sorted(lines), "import sys; print('torch' in sys.modules)"])
    assert run(sys.executable, "-c", program, cwd=ROOT, PYTHONPATH=str(PACKAGE.parent)) == "False\n"


@cache
def distributions():
    """Who provides each module here; to find out takes half a second."""
    return packages_distributions()


def imports(path: Path) -> set[str]:
    """The distributions that a module imports from, at once or in its functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module).split(".")[0])
            if node.module == "torch.utils.tensorboard":
                names.add("tensorboard")  # which it imports in turn
    names -= {"policy_distillation", *sys.stdlib_module_names}
    return {distributions().get(name, [name])[0].lower().replace("_", "-") for name in names}


def declared(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", text)[0].lower().replace("_", "-") for text in requirements}


CORE = declared(PROJECT["dependencies"])
EXTRAS = {name for extra in PROJECT["optional-dependencies"].values() for name in declared(extra)}


def test_the_wheel_asks_for_what_it_needs_and_the_tests_run_with_that(installed):
    """What pip would put into an empty environment; that this is all that is imported, the next tests say."""
    (metadata,) = installed.target.glob("policy_distillation-*.dist-info")
    requirements = [Requirement(text) for text in Distribution.at(metadata).requires]
    core = [each for each in requirements if each.marker is None]
    assert declared([each.name for each in core]) == CORE
    assert declared([each.name for each in requirements]) == CORE | EXTRAS
    for each in core:
        assert each.specifier.contains(version(each.name), prereleases=True), each


def test_the_docs_list_every_extra():
    (listed,) = re.findall(r"Extras: (.*?)what Snakemake's side", (ROOT / "docs/using.md").read_text(), re.S)
    named = re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", listed, flags=re.S))
    assert sorted(named) == sorted(PROJECT["optional-dependencies"])


@pytest.mark.slow
def test_whatever_the_package_imports_is_declared():
    used = {path.name: imports(path) for path in PACKAGE.rglob("*.py")}
    undeclared = {name: found - CORE - EXTRAS for name, found in used.items() if found - CORE - EXTRAS}
    assert not undeclared
    assert set().union(*used.values()) >= CORE, "declared but not used"


@pytest.mark.slow
def test_the_commands_need_no_extra(installed):
    names = sorted(name for name, owners in distributions().items() if declared(owners) & (EXTRAS - CORE))
    assert {"matplotlib", "snakemake", "tensorboard"} <= set(names)
    commands = [
        ["inspect", str(AGENT)],
        ["export", str(AGENT), "--to", "cleanrl", "--output", "freeway.cleanrl_model"],
        ["import", "freeway.cleanrl_model", "--game", "freeway", "--output", "imported.safetensors"],
        ["evaluate", "imported.safetensors", "--episodes", "1", "--envs", "1"],
    ]
    program = f"""
import sys
for name in {names}:
    sys.modules[name] = None  # importing it fails
from policy_distillation.__main__ import main
for command in {commands}:
    sys.argv = ["policy-distillation", *command]
    main()
"""
    said = installed.python("-c", program)
    description, end = json.JSONDecoder().raw_decode(said)
    assert description["games"] == ["freeway"]
    exported, *imported, evaluated = said[end:].strip().splitlines()
    assert exported.startswith("written to freeway.cleanrl_model, ")
    assert imported[-1].split() == ["written", "to", "imported.safetensors"]
    assert evaluated.startswith("freeway: mean return ")
