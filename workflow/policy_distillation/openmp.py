"""OpenMP's threads: how idle ones wait, and that none is tied to a core. Imports nothing: the settings are read when
torch is loaded, so this comes first.

GNU OpenMP's threads wait for their next piece of work by spinning, on the cores that the emulators want. How long is a
trade: an update wants its threads awake, an emulator wants the core.

Many clusters tie OpenMP's threads to cores (``OMP_PROC_BIND=true``). Emulators and evaluation have threads of their
own, which are started by the main one and inherit its core: all of them would share it.
"""

from __future__ import annotations

import os
import sys

SPIN_COUNTS = {"play": 1_000, "train": 30_000, "learn": None}
"""Rounds that an idle thread spins before it sleeps: in jobs that only play, and in those that play and learn. Measured
on two cores; a student's job plays hardly at all and keeps OpenMP's own setting."""
BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY")


def prepare(work: str) -> None:
    """Choose how idle threads wait for ``work``, ``play``, ``train`` or ``learn``, unless the environment says it
    already, and leave all threads free to run on any core that the process may use."""
    spin_count = SPIN_COUNTS[work]
    if spin_count is not None:
        os.environ.setdefault("GOMP_SPINCOUNT", str(spin_count))
    for name in BINDING:
        value = os.environ.pop(name, "false")
        if value.lower() != "false":
            print(f"{name}={value} is not obeyed: the emulators' threads would share one core", file=sys.stderr)
