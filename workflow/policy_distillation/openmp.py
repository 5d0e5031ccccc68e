"""How OpenMP's idle threads wait. Imports nothing: the settings are read when torch is loaded, so this comes first.

GNU OpenMP's threads wait for their next piece of work by spinning, on the cores that the emulators want. How long is a
trade: an update wants its threads awake, an emulator wants the core.
"""

from __future__ import annotations

import os

SPIN_COUNTS = {"play": 1_000, "train": 30_000}
"""Rounds that an idle thread spins before it sleeps: in jobs that only play, and in those that play and learn. Measured
on two cores; a student's job plays hardly at all and keeps OpenMP's own setting."""


def set_waiting(work: str) -> None:
    """Choose how idle threads wait for ``work``, ``play`` or ``train``, unless the environment says it already."""
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNTS[work]))
