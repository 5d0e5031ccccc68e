"""SIGTERM (a time limit, a preemption) and SIGINT (Ctrl-C): an end in good order."""

from __future__ import annotations

import signal
from types import FrameType


class Stopped(SystemExit):
    """The process ends because a signal asked for it; temporary files are removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number).name


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """A signal's handler for jobs that have nothing to save."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # they come in threes: from Slurm, from Snakemake, from a wrapper
    raise Stopped(number)


class StopSignal:
    """Turns both signals into a flag that a loop reads where it can stop.

    A second SIGINT stops at once: what was not saved is lost.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> StopSignal:
        self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
