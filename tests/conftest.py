"""One thread per test process, and fixtures for the tests that run Snakemake itself."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import debian
import hypothesis
import pytest

# Before torch is imported: two test processes on two cores, each spinning on two threads, take ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
import torch

# A loaded machine is no reason to fail.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that no process waits at the end for another one's long test."""
    items.sort(key=lambda item: (item.get_closest_marker("workflow") is None, item.get_closest_marker("slow") is None))


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """What a job sets for its process ends with the test that ran it: Hypothesis, for one, draws subnormal numbers."""
    threads = torch.get_num_threads()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


def load_example(name: str) -> ModuleType:
    """One of docs/examples, which belong to no package."""
    spec = spec_from_file_location(name, ROOT / "docs" / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    example = module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


def need_program(program: str, package: str) -> None:
    """Skip the test where a program is missing; install its Debian package first if BROWSER_TESTS=required."""
    if shutil.which(program):
        return
    if os.environ.get("BROWSER_TESTS") != "required":
        pytest.skip(f"{program} is missing (Debian: {package}); BROWSER_TESTS=required installs it")
    debian.install(package)


class Checkout:
    """A copy of the project in an empty folder, or the one that is there, with a way to run Snakemake in it."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder, self.variables = folder, variables
        if (folder / "Snakefile").exists():
            return
        for name in ("Snakefile", "config.yaml", "workflow", "envs", "profiles", "resources", "tests/smoke.yaml"):
            source, target = ROOT / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "students"))
            else:
                shutil.copy(source, target)
        (folder / "slurm").symlink_to("profiles/slurm")

    def copy_to(self, folder: Path, **variables: str) -> Checkout:
        """Another checkout in the same state, with Snakemake's records of what was made from what."""
        shutil.copytree(self.folder, folder, symlinks=True, dirs_exist_ok=True)
        return Checkout(folder, **{**self.variables, **variables})

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", *arguments]

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        keep = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "SNAKEMAKE"))}
        own = {"PATH": path, "PYTHONPATH": "", "XDG_CONFIG_HOME": str(self.folder / "xdg")}
        own["PYTHONDONTWRITEBYTECODE"] = ""  # a copy is read by a hundred processes
        return {**keep, **own, **self.variables}

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake to its end; its output, errors included, is in ``stdout``."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Snakemake in a process group of its own, to be killed as a whole."""
        with open(self.folder / "snakemake.out", "ab") as out:
            return subprocess.Popen(
                self.command(*arguments),
                cwd=self.folder,
                env=self.environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy in which nothing has run."""
    return Checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy in which the whole smoke workflow has run: real emulator, training, data, students, results.

    All test processes share it. Whoever writes into it belongs to the group of that name, which one process runs.
    """
    here = tmp_path_factory.getbasetemp()
    folder = (here.parent if "PYTEST_XDIST_WORKER" in os.environ else here) / "finished"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        copy, output = Checkout(folder), folder.with_suffix(".out")
        if not output.exists():
            done = copy.snakemake("--configfile", "tests/smoke.yaml", "--", "all")
            output.write_text(f"{done.stdout}\nexit {done.returncode}\n")
        assert output.read_text().endswith("exit 0\n"), output.read_text()[-4000:]
    return copy
