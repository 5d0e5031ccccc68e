"""An end in good order: at SIGTERM (a time limit, a preemption), at SIGINT (Ctrl-C), and at what a user can mend."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
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


def end_at_ctrl_c() -> None:
    """From here to :func:`told_in_a_line`, while libraries are loaded, Ctrl-C ends the process without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def visible(text: str) -> str:
    """Text that may quote a foreign file, without what a terminal would act on."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


@contextlib.contextmanager
def told_in_a_line() -> Iterator[None]:
    """Around a command: what its user can mend ends it with one line instead of a traceback, and Ctrl-C with none."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # `inspect FILE | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is flushed at exit goes nowhere
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        place = "" if error.filename is None else f"{error.filename}: "
        sys.exit(f"error: {visible(f'{place}{error.strerror or error}')}")
    except ValueError as error:
        sys.exit(f"error: {visible(str(error))}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


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
