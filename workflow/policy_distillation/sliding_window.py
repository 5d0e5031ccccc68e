"""The sliding window of recorded play that students learn from, in memory."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .atari import STACK
from .dataset_format import CHUNK
from .parts import Part
from .replay import PIXELS, gather_stacks, pixel_moments

RUN = 8
"""Consecutive times that are kept where only a fraction of an hour is: with their context, 11 frames for 8 stacks."""


class Window:
    """The newest hours of one game's data in memory, sampled uniformly (the paper's circular ten-hour buffer).

    Of an hour the window keeps *runs* of times, all slots of them: one, the whole hour; or, of a fraction, short ones
    evenly spaced over it, so that less data means fewer steps of the same games. Each run stands behind three times of
    context, so that no stack reaches into another.
    """

    def __init__(
        self,
        part: Part,
        hours: int,
        first_hour: int = 0,
        fraction: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:
        """A window of ``hours`` like those of ``part``, of each of which a ``fraction`` enters.

        A resumed run starts at ``first_hour`` of the whole play: each hour lies where it would have lain.
        """
        self.slots, self.hours, self.filled = part.slots, hours, 0
        self.repeat_first_frame = part.repeat_first_frame
        self._times_per_hour = part.times_per_hour
        runs, self._run = _runs(part.times_per_hour, fraction)
        starts = np.arange(runs) * part.times_per_hour // runs
        before = np.arange(1 - STACK, self._run)
        self._kept: NDArray[np.int64] = (starts[:, None] + before).ravel()
        """Which time of an hour, context included, lies at each of its places in the window."""
        rows = hours * len(self._kept) * self.slots
        self.frames = torch.empty((rows, PIXELS), dtype=torch.uint8, device=device)
        self.ages = torch.zeros(rows, dtype=torch.uint8, device=device)
        self.q_values = torch.zeros((rows, len(part.action_ids)), dtype=torch.float32, device=device)
        self.next_hour = first_hour
        """Of the whole play: the one that enters next."""

    @staticmethod
    def size(part: Part, hours: int, fraction: float) -> int:
        """About how many bytes a window takes."""
        runs, run = _runs(part.times_per_hour, fraction)
        rows: int = hours * runs * (run + STACK - 1) * part.slots
        return rows * (PIXELS + 1 + 4 * len(part.action_ids))

    def push(self, part: Part, hour: int) -> None:
        """Let an hour of a part enter; once the window is full the oldest hour leaves."""
        start, places = hour * self._times_per_hour, len(self._kept)
        place = self.next_hour % self.hours
        here = slice(place * places, (place + 1) * places)
        frames, times = self.frames.view(-1, self.slots, PIXELS)[here], start + self._kept
        first = start + 1 - STACK
        while first < start + self._times_per_hour:  # a chunk at a time: an hour may be gigabytes
            last = min((first // CHUNK + 1) * CHUNK, start + self._times_per_hour)
            mine = np.flatnonzero((times >= first) & (times < last))
            if len(mine):
                block = torch.from_numpy(part.frames(first, last)).view(-1, self.slots, PIXELS)
                frames[torch.from_numpy(mine)] = block[torch.from_numpy(times[mine] - first)].to(frames.device)
            first = last
        labelled = np.maximum(self._kept, 0)  # nobody asks for the labels of the context
        self.ages.view(-1, self.slots)[here] = torch.from_numpy(part.ages[start + labelled])
        q_values = part.read("q_values", start, start + self._times_per_hour)[labelled]
        self.q_values.view(-1, self.slots, q_values.shape[-1])[here] = torch.from_numpy(q_values)
        self.next_hour += 1
        self.filled = min(self.filled + 1, self.hours)

    def sample(self, batch_size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Observations (batch, 4, 84, 84) uint8 and the teacher's Q-values (batch, actions) float32."""
        span = self._run + STACK - 1
        runs = rng.integers(0, self.filled * len(self._kept) // span, batch_size)
        times = rng.integers(STACK - 1, span, batch_size)
        slots = rng.integers(0, self.slots, batch_size)
        rows = torch.from_numpy((runs * span + times) * self.slots + slots)
        rows = rows.to(self.frames.device, non_blocking=True)
        stacks = gather_stacks(self.frames, self.ages, rows, self.slots, self.repeat_first_frame)
        return stacks, self.q_values[rows]

    def pixel_moments(self) -> tuple[float, float]:
        """Mean and mean square of the pixels of the newest hour."""
        places = len(self._kept) * self.slots
        first = (self.next_hour - 1) % self.hours * places
        return pixel_moments(self.frames, first + (STACK - 1) * self.slots, first + places - 1)


def _runs(times: int, fraction: float) -> tuple[int, int]:
    """How many runs of how many times a fraction of an hour is."""
    kept = max(1, round(times * fraction))
    runs = 1 if kept == times else -(-kept // RUN)
    return runs, min(round(kept / runs), times // runs)
