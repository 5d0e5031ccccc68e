"""Frames stored once, stacked when sampled: the gather that replay and data set share, and the replay itself.

A *store* is a flat array of frames written by ``slots`` emulators in lockstep: row ``t * slots + s`` is the newest
frame that slot s saw at time t, so a row's previous frame stands ``slots`` rows above it. ``ages`` counts the frames
since the game began (saturating): frames older than that belong to another game; the emulator showed zeros there, or
under some protocols the game's first frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import hdf5plugin
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .atari import SIDE, STACK, Step
from .files import atomic_path
from .hdf5 import open_hdf5

PIXELS = SIDE * SIDE


def gather_stacks(
    frames: Tensor, ages: Tensor, rows: Tensor, slots: int, repeat_first_frame: bool = False, ahead: int = 0
) -> Tensor:
    """Observations as the environment returned them, bit for bit.

    Args:
        frames: (N, 7056) uint8, a circular store. Where it lies, all this is computed: on a GPU, if it is there.
        ages: (N,) uint8, frames since the game began, saturating.
        rows: (batch,) int64, the rows of the observations' newest frames.
        slots: emulators that wrote the store.
        repeat_first_frame: as the protocol says.
        ahead: how many of the slot's next frames to add at the end. While the game lasts, the last four frames are
            the observation ``ahead`` steps later, and the frames that two observations share are read once.

    Returns:
        (batch, 4 + ahead, 84, 84) uint8, oldest frame first.
    """
    depth = STACK + ahead
    back = torch.arange(STACK - 1, -1 - ahead, -1, device=rows.device).expand(len(rows), depth)
    if repeat_first_frame:
        back = torch.minimum(back, ages[rows][:, None])
    index = (rows[:, None] - back * slots) % len(frames)
    stacks = frames.index_select(0, index.flatten()).view(len(rows), depth, SIDE, SIDE)
    before_start = ages[rows][:, None] < back
    if stacks.is_cuda:  # to look whether there are any would wait for the GPU
        stacks.masked_fill_(before_start[:, :, None, None], 0)
    elif before_start.any():
        stacks[before_start] = 0
    return stacks


def pixel_moments(frames: Tensor, first: int, last: int) -> tuple[float, float]:
    """Mean and mean square of the pixels of 4,096 evenly spaced rows of a store, from ``first`` to ``last``."""
    pixels = frames[torch.linspace(first, last, 4096, device=frames.device).long()].double()
    return float(pixels.mean()), float(pixels.square().mean())


@dataclass(frozen=True)
class Batch:
    """n-step transitions, ready for a Q-learning update. First axis: batch."""

    observations: Tensor
    """(batch, 4, 84, 84) uint8."""
    actions: Tensor
    """int64."""
    returns: Tensor
    """float32: discounted sum of the n rewards, up to a termination."""
    discounts: Tensor
    """float32: what the bootstrap value is multiplied by: discount ** n, or 0 after a termination."""
    next_observations: Tensor
    """(batch, 4, 84, 84) uint8, n steps later; meaningless where the bootstrap does not count."""
    weights: Tensor
    """float32: 0 where a truncation hides the state to bootstrap from, else 1."""


def store_device(size: int, device: torch.device) -> torch.device:
    """Where a store of ``size`` bytes should lie: on a GPU if half of its free memory suffices, else on the host."""
    fits = device.type == "cuda" and size <= torch.cuda.mem_get_info(device)[0] // 2
    return device if fits else torch.device("cpu")


class Replay:
    """The newest ``capacity`` transitions: 7,064 bytes each, 1 M of them in 7.1 GB (Mnih et al. 2015, methods).

    Args:
        capacity: transitions kept; rounded down to whole vector steps.
        slots: emulators that write in lockstep.
        n_step, discount: of the returns that :meth:`sample` computes.
        repeat_first_frame: as the protocol says.
        device: where the transitions lie (:func:`store_device`) and batches are put together.
    """

    def __init__(
        self,
        capacity: int,
        slots: int,
        n_step: int,
        discount: float,
        repeat_first_frame: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.slots, self.n_step, self.discount = slots, n_step, discount
        self.repeat_first_frame = repeat_first_frame
        self.times = capacity // slots
        if self.times < STACK + n_step + 1:
            raise ValueError(f"a replay of {capacity} transitions is too small for {slots} environments")
        rows = self.times * slots
        self.frames = torch.empty((rows, PIXELS), dtype=torch.uint8, device=device)  # pages are touched as they fill
        self.ages = torch.zeros(rows, dtype=torch.uint8, device=device)
        self.actions = torch.zeros(rows, dtype=torch.uint8, device=device)
        self.rewards = torch.zeros(rows, dtype=torch.float32, device=device)
        self.terminations = torch.zeros(rows, dtype=torch.bool, device=device)
        self.truncations = torch.zeros(rows, dtype=torch.bool, device=device)
        self.head = 0  # the time that is written next
        self.filled = 0  # times written so far, at most self.times
        self._age = np.zeros(slots, np.uint8)

    def __len__(self) -> int:
        return self.filled * self.slots

    def append(self, observations: NDArray[np.uint8], actions: NDArray[np.int64], step: Step) -> None:
        """Add one vector step: what was seen (slots, 4, 84, 84), what was done (slots,), and what came of it."""
        here = slice(self.head * self.slots, (self.head + 1) * self.slots)
        self.frames[here] = torch.from_numpy(observations[:, -1].reshape(self.slots, PIXELS))
        self.ages[here] = torch.from_numpy(self._age)
        self.actions[here] = torch.from_numpy(actions).to(torch.uint8)
        self.rewards[here] = torch.from_numpy(step.rewards)
        self.terminations[here] = torch.from_numpy(step.terminations)
        self.truncations[here] = torch.from_numpy(step.truncations)
        self._age = np.where(step.episode_ends, 0, np.minimum(self._age + 1, STACK)).astype(np.uint8)
        self.head = (self.head + 1) % self.times
        self.filled = min(self.filled + 1, self.times)

    def sample(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """Uniform over all transitions whose stack and next n steps are in the store."""
        first = self.head - self.filled + (STACK - 1)  # the oldest three times lack their history
        times = rng.integers(first, self.head - self.n_step, batch_size)
        slots = rng.integers(0, self.slots, batch_size)
        device = self.frames.device
        rows = torch.from_numpy((times % self.times) * self.slots + slots).to(device, non_blocking=True)
        total = len(self.frames)
        returns = torch.zeros(batch_size, device=device)
        alive = torch.ones(batch_size, device=device)
        weights = torch.ones(batch_size, device=device)
        for k in range(self.n_step):
            step = (rows + k * self.slots) % total
            returns += self.discount**k * alive * self.rewards[step]
            weights *= 1 - alive * self.truncations[step].float()
            alive *= 1 - self.terminations[step].float()
        stacks = gather_stacks(self.frames, self.ages, rows, self.slots, self.repeat_first_frame, ahead=self.n_step)
        return Batch(
            observations=stacks[:, :STACK],
            actions=self.actions[rows].long(),
            returns=returns,
            discounts=self.discount**self.n_step * alive,
            next_observations=stacks[:, -STACK:],
            weights=weights,
        )

    def save(self, path: Path) -> None:
        """Write the filled part, oldest first, to HDF5. Zstandard shrinks Atari frames some fifty times."""
        order = torch.arange(self.head - self.filled, self.head, device=self.frames.device) % self.times
        with atomic_path(path) as temporary, open_hdf5(temporary, "w") as file:
            shape = (self.filled, self.slots, PIXELS)
            chunks = (min(64, self.filled), 1, PIXELS) if self.filled else None
            frames = file.create_dataset("frames", shape, "u1", chunks=chunks, **hdf5plugin.Zstd(clevel=1))
            view = self.frames.view(self.times, self.slots, PIXELS)
            for start in range(0, self.filled, 64):  # whole chunks, without a second copy of the store in memory
                frames[start : start + 64] = view[order[start : start + 64]].cpu().numpy()
            for name in ("ages", "actions", "rewards", "terminations", "truncations"):
                file[name] = getattr(self, name).view(self.times, self.slots)[order].cpu().numpy()

    def load(self, path: Path) -> None:
        """Read what :meth:`save` wrote. The emulators start new games: the newest stored step counts as truncated."""
        with open_hdf5(path, "r") as file:
            kept, slots = file["ages"].shape
            if slots != self.slots or kept > self.times:
                raise ValueError(f"{path}: a replay of {kept} x {slots} does not fit into {self.times} x {self.slots}")
            view = self.frames.view(self.times, slots, PIXELS)
            for start in range(0, kept, 64):
                stop = min(start + 64, kept)
                view[start:stop] = torch.from_numpy(file["frames"][start:stop])
            for name in ("ages", "actions", "rewards", "terminations", "truncations"):
                getattr(self, name).view(self.times, slots)[:kept] = torch.from_numpy(file[name][...])
        if kept:
            newest = slice((kept - 1) * slots, kept * slots)
            self.truncations[newest] |= ~self.terminations[newest]
        self._age[:] = 0
        self.filled, self.head = kept, kept % self.times
