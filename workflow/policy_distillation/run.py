"""A long run: what it goes on from after a kill, how far it is, and when it stops. What it computes is not its concern.

An algorithm is a generator of turns, such as a vector step or an update. The run advances it, saves its state when that
is due or a signal came, and removes the state in the end::

    run = Run(folder, "student", description, total=10_000, unit="update", machine=machine)
    run.restore(student=student, rng=rng)           # as they were when the state was saved; saved again from now on
    for turn in run.turns(learn(student, data)):
        if run.shares_done(evaluations):
            run.score(lambda stop: score(student, stop))
    save_agent(folder / "agent.safetensors", student, run.metadata)
    run.remove_state()
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from .hardware import job_device
from .optimizers import restore_optimizer
from .progress import Progress
from .provenance import provenance
from .state import State
from .stopping import Stopped, StopSignal
from .training import computed, generator_state, restore_generator, select_device, select_precision

SAVING_SHARE = 0.05
"""Most of a run's time that goes into saving: a replay of gigabytes is saved less often than the period says."""


@dataclass(frozen=True)
class Machine:
    """How to compute. It changes rounding alone, but for this: on a GPU, agents are scored in games of other seeds."""

    device: str = "auto"
    """``auto`` (the GPU where there is one), ``cpu``, ``cuda`` or ``cuda:1``."""
    precision: str = "auto"
    """Of the networks' trunks: ``auto`` (bfloat16 where it is fast), ``float32`` or ``bfloat16``."""
    checkpoint_seconds: float = 300.0
    """Between two savings of the state; more where saving takes long."""
    tracker: str | None = None
    """Where the learning curve is sent as well: ``wandb`` or ``trackio``."""

    @classmethod
    def of_job(cls, settings: Mapping[str, Any]) -> Machine:
        """As the configuration's ``machine`` says, on a GPU of its own where there are several."""
        names = ("precision", "checkpoint_seconds", "tracker")
        return cls(job_device(settings["device"]), **{name: settings[name] for name in names})


AUTOMATIC = Machine()


@dataclass(frozen=True)
class Turn:
    """What an algorithm did since its last turn."""

    units: int
    """Agent steps or updates."""
    loss: Tensor | None
    """The newest loss, a scalar on any device; None if nothing was learnt. Looked at when the run saves or records."""
    facts: Callable[[], dict[str, float]] = dict
    """For a row of the learning curve; asked for only then, because a GPU has to be waited for."""


@runtime_checkable
class Stored(Protocol):
    """Too large to be saved with the rest: a file of its own."""

    def save(self, path: Path) -> None: ...
    def load(self, path: Path) -> None: ...


class Stopwatch:
    """Says when the next saving is due."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due = time.monotonic() + seconds

    def due(self) -> bool:
        return time.monotonic() >= self._due

    def saved(self, took: float) -> None:
        """Start the next period after a saving of so many seconds."""
        self._due = time.monotonic() + max(self._seconds, took / SAVING_SHARE)


class Run:
    """One run in one folder, which no other process may enter meanwhile.

    Args:
        folder: of the outputs; ``progress.csv`` is written here and the state kept in ``state``.
        kind: for the metadata: ``dqn``, ``pqn``, ``student``.
        description: all that determines the result, as plain values. A state saved under another is not gone on from.
        total: units of the whole run.
        unit: ``step`` or ``update``.
        machine: how to compute; no part of what determines the result.

    The metadata say which commit, software and hardware made the result, and in ``begun_by`` which others had begun it.
    """

    def __init__(
        self, folder: Path, kind: str, description: Mapping[str, Any], total: int, unit: str, machine: Machine
    ) -> None:
        self.folder, self.total, self._unit, self._machine = folder, total, unit, machine
        self.device = select_device(machine.device)
        self.precision = select_precision(machine.precision, self.device)
        made_by = {**provenance(), "computed": computed(self.device, self.precision)}
        self._state = State(folder / "state", description)
        self._saved = self._state.load()
        begun_by = [each for each in (self._saved or {}).get("made_by", []) if each != made_by]
        self._made_by = [*begun_by, made_by]  # asked for now: the files may be edited while this runs
        self.metadata = {**description, "kind": kind, **made_by, "begun_by": begun_by}
        self._parts: dict[str, Any] = {}
        self._needed: Callable[[], Iterable[Path]] = list
        saved = self._saved or {"done": 0, "seconds": 0.0, "learnt": False, "rows": [], "unscored": None}
        self.done: int = saved["done"]
        """Units done so far."""
        self.saved = self.done
        """Units that the newest state holds."""
        self._learnt, self._rows = saved["learnt"], saved["rows"]
        self._start = time.monotonic() - saved["seconds"]  # as if it had never been interrupted
        self._unscored: dict[str, Any] | None = saved["unscored"]
        self._before: int = self._unscored["before"] if self._unscored else self.done
        self._loss: Tensor | None = None
        self._began = False  # an algorithm asks for its parts, and changes them, from its first turn on
        self.stop = StopSignal()
        """Up when a signal has come: what takes long within a turn raises Stopped."""
        self._signals = contextlib.ExitStack()  # from the first turn until the state is removed

    @property
    def resumed(self) -> bool:
        """Whether it goes on from a state."""
        return self._saved is not None

    @property
    def scratch(self) -> Path:
        """A folder for files that are needed as long as the run lasts."""
        return self._state.folder

    def needs(self, files: Callable[[], Iterable[Path]]) -> None:
        """Scratch files without which a state is of no use: which they are is asked at each saving."""
        self._needed = files

    def restore(self, **parts: Any) -> None:
        """Bring parts back to what they were when the state was saved, and save them with it from now on.

        A part has ``state_dict`` and ``load_state_dict``, or is a numpy generator, or is :class:`Stored`.
        """
        for name, part in parts.items():
            self._parts[name] = part
            if self._saved is None:
                continue
            if isinstance(part, Stored):
                part.load(self._state.stored(name))
                continue
            state = self._saved["parts"].pop(name)  # not held in memory for the whole run
            if isinstance(part, np.random.Generator):
                restore_generator(part, state)
            elif isinstance(part, torch.optim.Optimizer):
                restore_optimizer(part, state)
            else:
                part.load_state_dict(state)

    def turns(self, algorithm: Iterator[Turn]) -> Iterator[Turn]:
        """Advance the algorithm to the end of the run, turn by turn.

        A run that a signal stopped while it was scoring begins with the turn that has no score yet. After the last turn
        a signal stops nothing: what is left to do is done in seconds, and until then the newest state may be old.

        Raises:
            Stopped: after a signal, when the state is saved.
            FloatingPointError: the loss is no longer finite.
            ValueError: the whole run learnt nothing.
        """
        csv, tracker = self.folder / "progress.csv", self._machine.tracker
        before = self._rows, self.done, time.monotonic() - self._start
        self._progress = Progress(self.total, self._unit, csv, *before, tracker, self.metadata)
        watch = Stopwatch(self._machine.checkpoint_seconds)
        with contextlib.ExitStack() as signals:
            stop = signals.enter_context(self.stop)
            try:
                while self.done < self.total or self._unscored:
                    try:
                        turn = self._again() if self._unscored else self._advance(algorithm)
                    except Stopped:  # within a turn, before which its parts are left, so that it can be taken again
                        self._save()
                        raise
                    yield turn
                    if stop.received or watch.due():
                        begin = time.monotonic()
                        self._save()
                        watch.saved(time.monotonic() - begin)
                    if stop.received:
                        raise Stopped(stop.received)
            finally:
                self._progress.close()
            if not self._learnt:
                raise ValueError(
                    f"{self.folder}: nothing was learnt in {self.done:,} {self._unit}s, so no agent is written"
                )
            self._signals = signals.pop_all()

    def _advance(self, algorithm: Iterator[Turn]) -> Turn:
        self._began = True
        self._turn = next(algorithm)
        self._before, self.done = self.done, self.done + self._turn.units
        if self._turn.loss is not None:
            self._loss, self._learnt = self._turn.loss, True
        self._progress.advance(self._turn.units)
        return self._turn

    def _again(self) -> Turn:
        """The turn that was being scored when a signal came; nothing has happened since."""
        assert self._unscored is not None
        facts: dict[str, float] = self._unscored["facts"]
        self._turn, self._unscored = Turn(0, None, lambda: facts), None
        return self._turn

    def passes(self, period: int) -> bool:
        """Whether the last turn completed another ``period`` of units, or the run."""
        return self.done // period > self._before // period or self.done >= self.total

    def shares_done(self, count: int) -> range:
        """Which of the run's ``count`` equal shares the last turn completed, from 0."""
        return range(self._before * count // self.total, min(count, self.done * count // self.total))

    def shares_over(self, count: int) -> range:
        """Which of them earlier turns completed, when the run begins or goes on: not that of a turn to score again."""
        return range(min(count, self._before * count // self.total))

    def score(self, score: Callable[[StopSignal], Mapping[str, float]]) -> None:
        """Add a row to the learning curve: what the last turn says of itself, and what ``score`` finds by playing.

        Games can outlast the time between a signal and the kill that follows. So ``score`` is given the signal's flag
        and raises Stopped when it is up; the state is saved, and the next run scores this turn again from the start.
        """
        try:
            scores = score(self.stop)
        except Stopped:
            self._save({"before": self._before, "facts": self._turn.facts()})
            raise
        self.record({**self._turn.facts(), **scores})

    def record(self, values: Mapping[str, float]) -> None:
        """Add a row to the learning curve."""
        self._check_loss()
        self._progress.record(values)

    def remove_state(self) -> None:
        """After the agent was written: the state is no longer needed, and the folder free for others."""
        self._state.remove()
        self._signals.close()

    def _check_loss(self) -> None:
        if self._loss is not None and not torch.isfinite(self._loss):
            text = f"the loss is {self._loss.item()} at {self._unit} {self.done:,}; the last checkpoint is kept"
            raise FloatingPointError(f"{self.folder}: {text}; a lower learning_rate may help")

    def _save(self, unscored: Mapping[str, Any] | None = None) -> None:
        if self.resumed and not self._began:
            return  # the state that was loaded still holds, with parts that nobody has asked for yet
        self._check_loss()
        parts = {}
        stored = {}
        for name, part in self._parts.items():
            if isinstance(part, np.random.Generator):
                parts[name] = generator_state(part)
            elif isinstance(part, Stored):
                stored[name] = part.save
            else:
                parts[name] = part.state_dict()
        facts = {"done": self.done, "learnt": self._learnt, "rows": self._rows, "unscored": unscored}
        facts["made_by"] = self._made_by
        facts["seconds"] = time.monotonic() - self._start
        self._state.save({**facts, "parts": parts}, stored, self._needed())
        self.saved = self.done
