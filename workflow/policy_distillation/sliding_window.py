"""The sliding window of recorded play that students learn from, in memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .atari import STACK
from .parts import Part
from .replay import PIXELS, gather_stacks, pixel_moments


class Window:
    """The newest hours of one game's data in memory, sampled uniformly (the paper's circular ten-hour buffer).

    Each hour keeps three times of context before its first, so that no stack reaches into another hour.
    """

    def __init__(
        self,
        part: Part,
        hours: int,
        first_hour: int = 0,
        fraction: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:
        """A window of ``hours`` like those of ``part``, of each of which the first ``fraction`` enters.

        A resumed run starts at ``first_hour`` of the whole play: each hour lies where it would have lain.
        """
        self.slots, self.hours, self.filled = part.slots, hours, 0
        self.repeat_first_frame = part.repeat_first_frame
        self._times_per_hour = part.times_per_hour
        self.times = max(1, round(self._times_per_hour * fraction))
        self._span = self.times + STACK - 1
        rows = hours * self._span * self.slots
        self.frames = torch.empty((rows, PIXELS), dtype=torch.uint8, device=device)
        self.ages = torch.zeros(rows, dtype=torch.uint8, device=device)
        self.q_values = torch.zeros((rows, len(part.action_ids)), dtype=torch.float32, device=device)
        self._next = first_hour % hours

    @staticmethod
    def size(part: Part, hours: int, fraction: float) -> int:
        """About how many bytes a window takes."""
        return int(hours * fraction * part.times_per_hour * part.slots * (PIXELS + 4 * len(part.action_ids)))

    def push(self, part: Part, hour: int) -> None:
        """Let an hour of a part enter; once the window is full the oldest hour leaves."""
        start = hour * self._times_per_hour
        context = min(start, STACK - 1)
        first = (self._next * self._span + STACK - 1) * self.slots
        rows = slice(first - context * self.slots, first + self.times * self.slots)
        frames = part.read("frames", start - context, start + self.times)
        self.frames[rows] = torch.from_numpy(frames.reshape(-1, PIXELS))
        here = slice(first, first + self.times * self.slots)
        self.ages[here] = torch.from_numpy(part.ages[start : start + self.times].reshape(-1))
        q_values = part.read("q_values", start, start + self.times)
        self.q_values[here] = torch.from_numpy(q_values.reshape(-1, q_values.shape[-1]))
        self._next = (self._next + 1) % self.hours
        self.filled = min(self.filled + 1, self.hours)

    def sample(self, batch_size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Observations (batch, 4, 84, 84) uint8 and the teacher's Q-values (batch, actions) float32."""
        hours = rng.integers(0, self.filled, batch_size)
        times = rng.integers(STACK - 1, self._span, batch_size)
        slots = rng.integers(0, self.slots, batch_size)
        rows = torch.from_numpy((hours * self._span + times) * self.slots + slots).to(self.frames.device)
        stacks = gather_stacks(self.frames, self.ages, rows, self.slots, self.repeat_first_frame)
        return stacks, self.q_values[rows]

    def pixel_moments(self) -> tuple[float, float]:
        """Mean and mean square of the pixels of the newest hour."""
        newest = (self._next - 1) % self.hours
        first = (newest * self._span + STACK - 1) * self.slots
        return pixel_moments(self.frames, first, first + self.times * self.slots - 1)
