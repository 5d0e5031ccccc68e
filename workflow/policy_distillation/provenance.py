"""What made a file: commit, versions and hardware. Without torch, which takes longer to load than a table to make."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any


def provenance() -> dict[str, Any]:
    """For metadata: the commit, the versions and the hardware that made a file."""
    packages = ("torch", "ale-py", "gymnasium", "numpy", "h5py")
    torch = sys.modules.get("torch")  # whoever has not loaded it has used no GPU
    model = re.search(r"^model name\s*: (.*)$", cpu_info(), re.M)
    return {
        "commit": _commit(),
        "software": {"python": platform.python_version(), **{package: version(package) for package in packages}},
        "hardware": {
            "cpu": model[1] if model else platform.processor(),
            "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
        },
    }


def cpu_info() -> str:
    """What Linux says of its processors; nothing elsewhere."""
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def _commit() -> str | None:
    """Of the checkout that this file is in, with ``-dirty`` if it was edited since; or that pip installed from git."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "Snakefile").exists():  # installed; the folder may lie in a checkout of something else
        try:
            source = json.loads(distribution("policy-distillation").read_text("direct_url.json") or "{}")
        except PackageNotFoundError:
            return None
        commit: str | None = source.get("vcs_info", {}).get("commit_id")
        return commit
    return commit_of(root)


def commit_of(root: Path) -> str | None:
    """Of a checkout, with ``-dirty`` if it was edited since; None unless ``root`` is a checkout's top.

    Unpacked inside another project's checkout, it is not that one's commit that made the files.
    """
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return None
        return _git(root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
