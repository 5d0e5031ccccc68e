"""A part of a teacher data set, opened, verified and ready to be read hour by hour."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hdf5plugin  # noqa: F401 - teaches libhdf5 to read Zstandard
import numpy as np
from numpy.typing import NDArray

from .atari import SIDE, STACK
from .dataset_format import ATTRIBUTES, SCHEMA, STEP_ARRAYS, DatasetError, check_seal, open_verified, read_readout


class Part:
    """A part, opened, verified and ready to be read hour by hour. Raises DatasetError for any other file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digest = check_seal(path)
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
        ends = self._file["terminations"][...] | self._file["truncations"][...]
        self.ages = np.zeros((self.times, self.slots), np.uint8)  # frames since the game began, saturating
        for time in range(1, self.times):
            self.ages[time] = np.where(ends[time - 1], 0, np.minimum(self.ages[time - 1] + 1, STACK))

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
            "complete_episodes": int(complete.sum()),
            "mean_return": float(returns.mean()) if len(returns) else None,
        }

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """A range of times of one array."""
        try:
            values: NDArray[Any] = self._file[name][start:stop]
        except (OSError, RuntimeError) as error:
            raise DatasetError(f"{self.path}: damaged ({name}: {str(error)[:200]!r})") from None
        return values

    def observations(self, times: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.uint8]:
        """What the teacher saw at (time, slot): (n, 4, 84, 84). For looking around; students use
        :class:`.sliding_window.Window`."""
        stacks = np.zeros((len(times), STACK, SIDE, SIDE), np.uint8)
        for row, (time, slot) in enumerate(zip(times, slots, strict=True)):
            known = min(int(self.ages[time, slot]), STACK - 1) + 1
            stacks[row, STACK - known :] = self._file["frames"][time - known + 1 : time + 1, slot]
            if self.repeat_first_frame:
                stacks[row, : STACK - known] = stacks[row, STACK - known]
        return stacks

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
