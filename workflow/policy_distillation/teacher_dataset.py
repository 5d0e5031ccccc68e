"""Teacher data sets: what a frozen teacher saw, thought and did, in HDF5 (paper, section 3 and appendix).

One *part* is some hours of play by ``slots`` emulators in lockstep. Arrays are indexed [time, slot]; an hour is a range
of times, so a student can read a part hour by hour::

    frames        (times, slots, 84, 84) uint8    newest frame of each observation, stored once, Zstandard
    q_values      (times, slots, actions) float32 the teacher's, in the order of the attribute action_ids
    actions       (times, slots) uint8            what was played: epsilon-greedy, an index into action_ids
    rewards       (times, slots) float32          unclipped
    terminations  (times, slots) bool             the game ended with this step
    truncations   (times, slots) bool             the frame cap ended it
    episodes/     slot, start, length, seed, number, return, complete: one entry a game, in order of (slot, start)

Attributes: game, protocol, action_ids, part, hours, seed, teacher (digest of its file), settings, provenance. The first
line of the file names the format, the second the SHA-256 of what follows.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import os
import re
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .acting import rollout
from .atari import PROTOCOLS, SIDE, STACK, AtariVector
from .checkpoints import load_agent
from .files import atomic_path, file_digest
from .networks import Agent
from .replay import PIXELS, gather_stacks, pixel_moments
from .training import provenance, select_device, stream

SCHEMA = "policy_distillation.teacher_dataset/1"
USER_BLOCK = 512
"""Bytes before the HDF5 data: format and digest, in plain text."""
CHUNK = 64
"""Times per chunk: consecutive frames of one slot compress eighty times together, one alone ten times."""
STEP_ARRAYS = {"q_values": "f4", "actions": "u1", "rewards": "f4", "terminations": "b1", "truncations": "b1"}
EPISODE_FIELDS = {
    "slot": "i4",
    "start": "i8",
    "length": "i8",
    "seed": "i8",
    "number": "i8",
    "return": "f8",
    "complete": "b1",
}


class DatasetError(ValueError):
    """A file that is no intact part of a teacher data set. The message is one line for the user."""


@dataclass(frozen=True)
class Dataset:
    """How a teacher's play is recorded."""

    hours_per_part: int
    steps_per_hour: int
    """Agent steps over all slots (the paper: 15 a second, 54,000)."""
    envs: int
    """Emulators that play in lockstep; must divide steps_per_hour."""
    epsilon: float
    """Probability of a random action (the paper: 0.05)."""


def dump_part(
    teacher_path: Path,
    game: str,
    protocol: str,
    part: int,
    settings: Dataset,
    seed: int,
    path: Path,
    device: str = "auto",
    driver: Agent | None = None,
    driven: int = 0,
) -> None:
    """Let a teacher play and write one part. Parts draw from random streams of their own: none repeats another.

    Args:
        driver: a student that acts in the first ``driven`` slots; the teacher says what it thinks of them all.
    """
    if settings.steps_per_hour % settings.envs:
        raise DatasetError(f"envs ({settings.envs}) must divide steps_per_hour ({settings.steps_per_hour})")
    teacher, metadata = load_agent(teacher_path, select_device(device))
    if metadata["protocol"]["name"] != protocol:
        raise DatasetError(
            f"{teacher_path}: trained under {metadata['protocol']['name']}, but data is wanted under {protocol}"
        )
    env = AtariVector(game, PROTOCOLS[protocol], "play", settings.envs, stream(seed, "dataset", game, part))
    if list(teacher.actions.get(game, ())) != env.action_ids:
        raise DatasetError(f"{teacher_path}: its actions for {game} are not the protocol's {env.action_ids}")
    rng = np.random.default_rng(stream(seed, "exploration", game, part))
    slots = settings.envs
    times = settings.hours_per_part * settings.steps_per_hour // slots
    arrays = {name: np.zeros((times, slots), dtype) for name, dtype in STEP_ARRAYS.items()}
    arrays["q_values"] = np.zeros((times, slots, len(env.action_ids)), np.float32)
    attributes = {
        "game": game,
        "protocol": json.dumps(asdict(PROTOCOLS[protocol])),
        "action_ids": env.action_ids,
        "part": part,
        "hours": settings.hours_per_part,
        "seed": seed,
        "teacher": file_digest(teacher_path),
        "settings": json.dumps(asdict(settings)),
        "provenance": json.dumps(provenance()),
    }
    with atomic_path(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=USER_BLOCK) as file:
            frames = file.create_dataset(
                "frames",
                (times, slots, SIDE, SIDE),
                "u1",
                chunks=(min(CHUNK, times), 1, SIDE, SIDE),
                **hdf5plugin.Zstd(clevel=3),
            )
            block = np.zeros((CHUNK, slots, SIDE, SIDE), np.uint8)
            # Labels are for ever, so the teacher answers in float32.
            play = rollout(teacher, env, settings.epsilon, rng, "float32", driver, driven)
            for time, transition in zip(range(times), play, strict=False):
                block[time % CHUNK] = transition.observations[:, -1]
                arrays["q_values"][time] = transition.q_values
                arrays["actions"][time] = transition.actions
                arrays["rewards"][time] = transition.step.rewards
                arrays["terminations"][time] = transition.step.terminations
                arrays["truncations"][time] = transition.step.truncations
                if (time + 1) % CHUNK == 0 or time + 1 == times:
                    first = time // CHUNK * CHUNK
                    frames[first : time + 1] = block[: time + 1 - first]
                if (time + 1) % max(1, times // 10) == 0:
                    print(f"step {(time + 1) * slots:>9,} of {times * slots:,}", flush=True)
            for name, values in arrays.items():
                file[name] = values
            for name, values in _episodes(arrays, env.seeds).items():
                file[f"episodes/{name}"] = values
            file.attrs.update(attributes)
        seal(temporary)
    env.close()


def _episodes(arrays: Mapping[str, NDArray[Any]], seeds: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """The table of games, the last of each slot cut by the end of the part unless it ended just there."""
    ends = arrays["terminations"] | arrays["truncations"]
    times, slots = ends.shape
    rows = []
    for slot in range(slots):
        last = np.flatnonzero(ends[:, slot])
        starts = [0, *(last + 1)]
        stops = [*(last + 1), times]
        for number, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            if start < stop:
                total = float(arrays["rewards"][start:stop, slot].sum(dtype=np.float64))
                rows.append((slot, start, stop - start, seeds[slot], number, total, number < len(last)))
    columns = zip(*rows, strict=True)
    return {
        name: np.array(column, dtype) for (name, dtype), column in zip(EPISODE_FIELDS.items(), columns, strict=True)
    }


def seal(path: Path) -> None:
    """Write the SHA-256 of all that follows into the file's first 512 bytes, which HDF5 leaves to the user.

    Whoever reads checks it first: libhdf5 itself may crash on a damaged file.
    """
    with open(path, "r+b") as file:
        file.seek(USER_BLOCK)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        file.write(f"{SCHEMA}\nsha256 {digest}\n".encode())


def check_seal(path: Path) -> str:
    """The digest in an intact part. Raises DatasetError for any other file, without opening it as HDF5."""
    try:
        with open(path, "rb") as file:
            block = file.read(USER_BLOCK)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except OSError as error:
        raise DatasetError(f"{path}: unreadable ({error.strerror})") from None
    if not block.startswith(f"{SCHEMA}\n".encode()):
        raise DatasetError(f"{path}: not a part of a teacher data set in the format {SCHEMA}")
    if not block.startswith(f"{SCHEMA}\nsha256 {digest}\n".encode()):
        raise DatasetError(f"{path}: truncated, or altered since it was written (its digest does not match)")
    return digest


_SURVIVED: set[str] = set()
"""Digests of parts that libhdf5 has been through in this process."""
PATIENCE = 60
"""Seconds that libhdf5 may take over a part's structure; it takes milliseconds."""


def _survive(path: Path) -> None:
    """Raise DatasetError unless a child process lives through opening and verifying a part.

    The digest shows damage, not malice: whoever alters a part can seal it again, and libhdf5 crashes on some files and
    searches others for ever.
    """
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(PATIENCE)
            faulthandler.disable()
            with contextlib.suppress(DatasetError):  # said again by the parent
                _open_verified(path).close()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        raise DatasetError(f"{path}: damaged (reading it ends in {signal.Signals(-status).name})")


def _open_verified(path: Path) -> h5py.File:
    """The file behind a part, if everything that is read of it later is what dump_part writes."""
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise DatasetError(f"{path}: not HDF5 ({str(error)[:200]!r})") from None
    try:
        _verify(file, path.stat().st_size)
    except (LookupError, TypeError, ValueError, ArithmeticError, OSError, RuntimeError, AttributeError) as error:
        file.close()
        text = str(error)[:200]
        raise DatasetError(f"{path}: damaged ({text if type(error) is DatasetError else repr(error)[:200]})") from None
    return file


def _verify(file: h5py.File, size: int) -> None:
    """Raise DatasetError, or whatever h5py raises, for a file that is not laid out as this module says.

    Shapes alone prove nothing: HDF5 can declare terabytes in a few bytes. All but the frames lie in the file as they
    are, so ``size``, the file's, bounds them, and they bound the frames.
    """
    attributes = file.attrs
    ids = np.asarray(attributes["action_ids"])
    _require(ids.ndim == 1 and ids.dtype.kind in "iu" and 0 < len(ids) <= 18, "action_ids", ids.shape)
    _require(((ids >= 0) & (ids < 18)).all(), "action_ids", ids.tolist())
    _require(re.fullmatch(r"[a-z0-9_]{1,64}", str(attributes["game"])) is not None, "game", attributes["game"])
    _require(re.fullmatch(r"[0-9a-f]{64}", str(attributes["teacher"])) is not None, "teacher", attributes["teacher"])
    for name in ("protocol", "settings", "provenance"):
        _require(isinstance(json.loads(attributes[name]), dict), name, attributes[name])
    _require("name" in json.loads(attributes["protocol"]), "protocol", attributes["protocol"])
    times, slots = _array(file, "actions").shape
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(STEP_ARRAYS, (times, slots))
    shapes["q_values"] = (times, slots, len(ids))
    shapes["frames"] = (times, slots, SIDE, SIDE)
    types = STEP_ARRAYS | {"frames": "u1"}
    games = _array(file, "episodes/complete").shape
    _require(len(games) == 1, "episodes/complete", games)
    for name, dtype in EPISODE_FIELDS.items():
        shapes[f"episodes/{name}"], types[f"episodes/{name}"] = games, dtype
    for name, shape in shapes.items():
        array, expected = _array(file, name), np.dtype(types[name])
        if array.shape != shape or array.dtype != expected:
            raise DatasetError(f"{name} is {array.shape} {array.dtype}, expected {shape} {expected}")
        if name == "frames":
            _require(array.chunks == (min(CHUNK, times), 1, SIDE, SIDE), "chunks of frames", array.chunks)
            stored = array.id.get_num_chunks()
            _require(stored == -(-times // CHUNK) * slots, "number of chunks of frames", stored)
        else:
            bytes_ = array.size * expected.itemsize
            _require(array.chunks is None and array.id.get_storage_size() == bytes_ <= size, f"size of {name}", bytes_)
    hours = int(attributes["hours"])
    _require(0 < hours <= times and times % hours == 0, "hours", hours)


def _array(file: h5py.File, name: str) -> h5py.Dataset:
    """An array that lies in the file itself: not behind a link, nor put together from other files."""
    link, array = file.get(name, getlink=True), file[name]
    _require(isinstance(link, h5py.HardLink) and isinstance(array, h5py.Dataset), name, type(array).__name__)
    _require(not array.is_virtual and not array.external and array.shape is not None, name, "stored elsewhere")
    return array


def _require(condition: bool | np.bool_, name: str, value: object) -> None:
    if not condition:
        raise DatasetError(f"{name} cannot be {str(value)[:100]!r}")


class Part:
    """A part, opened, verified and ready to be read hour by hour. Raises DatasetError for any other file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digest = check_seal(path)
        if self.digest not in _SURVIVED:
            _survive(path)
            _SURVIVED.add(self.digest)
        self._file = _open_verified(path)
        attributes = self._file.attrs
        self.game = str(attributes["game"])
        self.action_ids = [int(action) for action in attributes["action_ids"]]
        self.protocol: dict[str, Any] = json.loads(attributes["protocol"])
        self.repeat_first_frame = bool(self.protocol.get("repeat_first_frame"))
        self.hours = int(attributes["hours"])
        self.teacher = str(attributes["teacher"])
        self.settings: dict[str, Any] = json.loads(attributes["settings"])
        self.times, self.slots = self._file["actions"].shape
        self.times_per_hour = self.times // self.hours
        ends = self._file["terminations"][...] | self._file["truncations"][...]
        self.ages = np.zeros((self.times, self.slots), np.uint8)  # frames since the game began, saturating
        for time in range(1, self.times):
            self.ages[time] = np.where(ends[time - 1], 0, np.minimum(self.ages[time - 1] + 1, STACK))

    def describe(self) -> dict[str, Any]:
        """The attributes, sizes and scores, for people."""
        attributes = {key: np.asarray(value).tolist() for key, value in self._file.attrs.items()}
        for key in ("protocol", "settings", "provenance"):
            attributes[key] = json.loads(attributes[key])
        complete = self._file["episodes/complete"][...]
        returns = self._file["episodes/return"][...][complete]
        return {
            "format": SCHEMA,
            "digest": self.digest,
            **attributes,
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
        """What the teacher saw at (time, slot): (n, 4, 84, 84). For looking around; students use :class:`Window`."""
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
