"""Nodes that share no disk, on one machine: `submit SCRIPT` prints a job's number, `status NUMBER` how it stands.

Each job works in an empty folder of its own, with an empty home, and sees the checkout that it was started from as an
empty folder, where the kernel allows that (`unshare --mount`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HIDDEN = "PRETENDED_NODES_HIDE"
NODES = "PRETENDED_NODES"
UNSHARE = ["unshare", "--map-root-user", "--mount"]
KEPT = ("PATH", "LANG", "OMP_NUM_THREADS")


def submit(script: str) -> None:
    node = Path(tempfile.mkdtemp(prefix="", dir=os.environ[NODES]))
    for name in ("home", "work"):
        (node / name).mkdir()
    (node / "job.sh").write_text(Path(script).read_text())
    steps = "cd work && HOME=$PWD/../home bash ../job.sh; echo $? > ../code.tmp; mv ../code.tmp ../code"
    hiding = subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode == 0
    if hiding:
        steps = f'mount -t tmpfs hidden "$0" && {steps}'
    with open(node / "out", "wb") as out:
        process = subprocess.Popen(
            [*(UNSHARE if hiding else []), "bash", "-c", steps, os.environ[HIDDEN]],
            cwd=node,
            env={name: value for name, value in os.environ.items() if name in KEPT},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    (node / "pid").write_text(str(process.pid))
    print(node.name)


def status(number: str) -> None:
    code = Path(os.environ[NODES]) / number / "code"
    print("running" if not code.exists() else "success" if code.read_text() == "0\n" else "failed")


def end_all(nodes: Path) -> None:
    """Kill what still runs."""
    for node in nodes.iterdir():
        if not (node / "code").exists():
            os.killpg(int((node / "pid").read_text()), signal.SIGKILL)


def outputs(nodes: Path) -> str:
    """What the jobs printed that did not succeed."""
    failed = [node for node in nodes.iterdir() if not (node / "code").exists() or (node / "code").read_text() != "0\n"]
    return "\n".join((node / "out").read_text()[-3000:] for node in failed)


if __name__ == "__main__":
    {"submit": submit, "status": status}[sys.argv[1]](sys.argv[2])
