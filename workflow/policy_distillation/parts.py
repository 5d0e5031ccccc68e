"""A part of a teacher data set, opened, verified and ready to be read hour by hour."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hdf5plugin  # noqa: F401 - teaches libhdf5 to read Zstandard
import numpy as np
from numpy.typing import NDArray

from .atari import SIDE, STACK
from .dataset_format import ATTRIBUTES, SCHEMA, STEP_ARRAYS, DatasetError, check_seal, open_verified, read_readout


@dataclass(frozen=True)
class Coverage:
    """Which steps of games a part holds."""

    ended: int
    """Games whose end was recorded."""
    complete: int
    """Those of them whose beginning was, too."""
    last_step: int
    """The latest step of a game that was recorded, counted from 1; nothing is known of what comes after it."""
    quarters: tuple[float, float, float, float]
    """Shares of the recorded steps in each quarter of the steps up to ``last_step``."""

    def lines(self) -> Iterator[str]:
        """The same in words, with a warning where no game ended."""
        shares = ", ".join(f"{share:.0%}" for share in self.quarters)
        yield f"{self.ended} games ended, {self.complete} of which began here too"
        yield f"no step of a game beyond {self.last_step:,} was seen; of those up to it, the quarters hold {shares}"
        if not self.ended:
            yield "WARNING: no game ended here, so nothing tells whether whole games were seen"


class Part:
    """A part, opened, verified and ready to be read hour by hour. Raises DatasetError for any other file."""

    def __init__(self, path: Path | str) -> None:
        self.path = path = Path(path)
        self.digest, self.content = check_seal(path)
        self._file = open_verified(path)
        attributes = self._file.attrs
        self.game = str(attributes["game"])
        self.action_ids = [int(action) for action in attributes["action_ids"]]
        self.protocol: dict[str, Any] = json.loads(attributes["protocol"])
        self.repeat_first_frame = bool(self.protocol.get("repeat_first_frame"))
        self.hours = int(attributes["hours"])
        self.teacher = str(attributes["teacher"])
        self.readout = read_readout(attributes)
        self.settings: dict[str, Any] = json.loads(attributes["settings"])
        self.times, self.slots = self._file["actions"].shape
        self.times_per_hour = self.times // self.hours
        self._ends = self._file["terminations"][...] | self._file["truncations"][...]
        self.steps = self._game_steps()
        """(times, slots) int32: the step of its game that each recorded step is, from 0."""
        self.ages = np.minimum(self.steps, STACK).astype(np.uint8)
        """The same, saturating: how many earlier frames of its game a stack can reach."""

    def _game_steps(self) -> NDArray[np.int32]:
        first = self._file["episodes/first_step"][...][self._file["episodes/start"][...] == 0]
        times = np.arange(self.times, dtype=np.int32)[:, None]
        began = np.where(np.roll(self._ends, 1, axis=0), times, 0)  # 0 but where a game begins
        began = np.maximum.accumulate(began, axis=0)  # when the game of each time did; 0: before the recording
        steps: NDArray[np.int32] = times - began + np.where(began == 0, first, 0).astype(np.int32)
        return steps

    def describe(self) -> dict[str, Any]:
        """The attributes, sizes and scores, for people."""
        attributes = {key: np.asarray(self._file.attrs[key]).tolist() for key in ATTRIBUTES}
        for key in ("protocol", "settings", "provenance"):
            attributes[key] = json.loads(attributes[key])
        complete = self._file["episodes/complete"][...]
        returns = self._file["episodes/return"][...][complete]
        return {
            "format": SCHEMA,
            "digest": self.digest,
            **attributes,
            "outputs": self.readout.outputs,
            "acting": self.readout.acting,
            "arrays": {name: list(self._file[name].shape) for name in ("frames", *STEP_ARRAYS)},
            "coverage": asdict(self.coverage()),
            "mean_return_of_complete_episodes": float(returns.mean()) if len(returns) else None,
        }

    def coverage(self) -> Coverage:
        """Which steps of games were recorded, for the log."""
        last = int(self.steps.max()) + 1
        counts = np.bincount((self.steps * 4 // last).ravel(), minlength=4)
        first, second, third, fourth = (counts / self.steps.size).tolist()
        complete = int(self._file["episodes/complete"][...].sum())
        return Coverage(int(self._ends.sum()), complete, last, (first, second, third, fourth))

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """A range of times of one array."""
        try:
            values: NDArray[Any] = self._file[name][start:stop]
        except (OSError, RuntimeError) as error:
            raise DatasetError(f"{self.path}: damaged ({name}: {str(error)[:200]!r})") from None
        return values

    def frames(self, start: int, stop: int) -> NDArray[np.uint8]:
        """The newest frames at a range of times, (stop - start, slots, 84, 84); ``start`` may be as low as -3."""
        known = self.read("frames", max(start, 0), stop)
        return known if start >= 0 else np.concatenate([self.read("context", 0, STACK - 1)[start:], known])

    def observations(self, times: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.uint8]:
        """What the teacher saw at (time, slot): (n, 4, 84, 84). Each is read from the file by itself; students use
        :class:`.sliding_window.Window`, which holds hours in memory."""
        stacks = np.zeros((len(times), STACK, SIDE, SIDE), np.uint8)
        for row, (time, slot) in enumerate(zip(times, slots, strict=True)):
            known = min(int(self.ages[time, slot]), STACK - 1) + 1
            stacks[row, STACK - known :] = self.frames(time - known + 1, time + 1)[:, slot]
            if self.repeat_first_frame:
                stacks[row, : STACK - known] = stacks[row, STACK - known]
        return stacks

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
