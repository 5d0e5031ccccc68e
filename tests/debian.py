"""Debian packages that tests need beside the environment."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def install(*packages: str) -> None:
    """Install them, one test process at a time. Raises RuntimeError, with the reason in a line."""
    if shutil.which("apt-get") is None:
        raise RuntimeError("there is no apt-get to install them with")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with open(Path(tempfile.gettempdir()) / "policydistillation-apt.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
            done = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"apt-get {command[0]} failed: {done.stderr.strip()[-300:]}")
