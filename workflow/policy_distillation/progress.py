"""A learning curve that people can follow while it grows: a CSV, TensorBoard, and a bar or plain lines."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from .files import atomic_path


class Progress:
    """Rows for a CSV, scalars for TensorBoard and a tracker, a bar on a terminal or plain lines in a log.

    Args:
        total: units of the whole run.
        unit: ``step`` or ``update``; also the name of the CSV's first column.
        csv: rewritten whole, atomically, at each row.
        rows: of an earlier part of the same run.
        done: units that the earlier part did.
        seconds: that it took.
        tracker: a package to send the rows to as well, ``wandb`` or ``trackio``, which take the same calls.
        facts: what the run is, for the tracker.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        csv: Path,
        rows: list[dict[str, float]],
        done: int = 0,
        seconds: float = 0.0,
        tracker: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter  # who plays or exports need not have it

        self.rows, self._unit, self._csv, self._total = rows, unit, csv, total
        self._board = SummaryWriter(str(csv.parent / "tensorboard"), purge_step=done + 1)
        self._tracked = Tracker(tracker, csv.parent, facts or {}) if tracker else None
        self._bar = tqdm(total=total, initial=done, unit=unit, unit_scale=True, disable=not sys.stderr.isatty())
        self._done, self._start, self._first = done, time.monotonic(), done
        self._seconds_before = seconds
        if done:
            print(f"resuming at {unit} {done:,} of {total:,}", flush=True)
        if rows:  # a run that has no row left to add needs the file, too
            self._write()

    def advance(self, units: int) -> None:
        self._done += units
        self._bar.update(units)

    def record(self, values: Mapping[str, float]) -> None:
        """Add a row at the current unit; ``seconds`` is the time that training has taken so far."""
        elapsed = time.monotonic() - self._start
        row = {self._unit: self._done, "seconds": round(self._seconds_before + elapsed, 1), **values}
        self.rows.append(row)
        self._write()
        for name, value in values.items():
            self._board.add_scalar(name, value, self._done)
        if self._tracked:
            self._tracked.log({name: value for name, value in row.items() if name != self._unit}, self._done)
        rate = (self._done - self._first) / max(elapsed, 1e-9)
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        line = f"{self._unit} {self._done:>10,} of {self._total:,}  {text}  ({rate:,.0f} {self._unit}s/s)"
        if self._bar.disable:
            print(line, flush=True)
        else:
            tqdm.write(line)

    def _write(self) -> None:
        with atomic_path(self._csv) as temporary:
            pd.DataFrame(self.rows).to_csv(temporary, index=False)

    def close(self) -> None:
        """What TensorBoard could not write undoes nothing: the CSV has all of it."""
        self._bar.close()
        try:
            self._board.close()
        except OSError as error:
            print(f"{self._board.log_dir}: not whole ({error.strerror}); {self._csv.name} is", flush=True)
        if self._tracked:
            self._tracked.finish()


class Tracker:
    """A run at ``wandb`` or ``trackio``, which take the same calls; whoever uses neither need not have them.

    A run that goes on after an interruption is another there, of the same name and group. What the tracker raises, such
    as that the network is down, is said once and ends no run: the CSV has all that it is told.
    """

    def __init__(self, package: str, folder: Path, facts: Mapping[str, Any]) -> None:
        self._package, self._run = package, None
        name, config = str(folder), dict(facts)
        module = importlib.import_module(package)
        self._run = self._try(lambda: module.init(project="policy-distillation", name=name, group=name, config=config))

    def log(self, values: Mapping[str, float], step: int) -> None:
        if run := self._run:
            self._try(lambda: run.log(values, step=step))

    def finish(self) -> None:
        if run := self._run:
            self._try(run.finish)

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # anything that two libraries and their servers may raise
            self._run = None
            print(f"{self._package}: told nothing more ({type(error).__name__}: {error}); progress.csv is", flush=True)
            return None
