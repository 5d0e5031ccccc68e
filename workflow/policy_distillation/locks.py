"""Locks that die with their owner, so that a killed run leaves nothing to clean up. Imports nothing heavy."""

from __future__ import annotations

import datetime
import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO


class Locked(RuntimeError):
    """Somebody else works there. The message is one line for the user."""


def hold_lock(path: Path) -> TextIO:
    """Lock a file for as long as the returned handle stays open; the kernel releases it however the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (the caller keeps it open)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise Locked(f"{path.parent}: in use by {owner or 'another process'}; wait for it or stop it") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.datetime.now():%Y-%m-%d %H:%M}\n")
    file.flush()
    return file
