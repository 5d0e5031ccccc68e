"""The format of teacher data sets: what a frozen teacher saw, thought and did, in HDF5 (paper, section 3 and appendix).

One *part* is some hours of play by ``slots`` emulators in lockstep. Arrays are indexed [time, slot]; an hour is a range
of times, so a student can read a part hour by hour::

    frames        (times, slots, 84, 84) uint8    newest frame of each observation, stored once, Zstandard
    q_values      (times, slots, actions) float32 the teacher's, in the order of the attribute action_ids
    actions       (times, slots) uint8            what was played, an index into action_ids
    rewards       (times, slots) float32          unclipped
    terminations  (times, slots) bool             the game ended with this step
    truncations   (times, slots) bool             the frame cap ended it
    context       (3, slots, 84, 84) uint8        the older frames of the first observations, oldest first, Zstandard
    episodes/     one entry a game, in order of (slot, start):
        slot, start, length     where its recorded steps stand
        first_step              the game's own step at ``start``: not 0 where recording began in the middle of it
        seed                    of the game: it and the actions since the game began determine it
        return                  the sum of the recorded rewards
        complete                it began and ended here, so ``return`` is its score

Attributes: game, protocol, action_ids, part, hours, seed, teacher (digest of its file), settings, provenance; outputs,
what q_values are (``logits`` of a teacher that has a policy), and acting, how the teacher chose its actions
(:mod:`.readouts`). Before the HDF5 data stand three lines: the format; the SHA-256 of the HDF5 data; and that of the
*content*, of arrays and attributes but the provenance, by which data made again are known to be the same.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from .atari import SIDE, STACK
from .hdf5 import open_hdf5
from .readouts import MOST_ACTIONS, Readout

SCHEMA = "policy_distillation.teacher_dataset/2"
USER_BLOCK = 512
"""Bytes before the HDF5 data: format and digest, in plain text."""
CHUNK = 64
"""Times per chunk: consecutive frames of one slot compress eighty times together, one alone ten times."""
STEP_ARRAYS = {"q_values": "f4", "actions": "u1", "rewards": "f4", "terminations": "b1", "truncations": "b1"}
EPISODE_FIELDS = {
    "slot": "i4",
    "start": "i8",
    "first_step": "i8",
    "length": "i8",
    "seed": "i8",
    "return": "f8",
    "complete": "b1",
}
ATTRIBUTES = ("game", "protocol", "action_ids", "part", "hours", "seed", "teacher", "settings", "provenance")


class DatasetError(ValueError):
    """A file that is no intact part of a teacher data set. The message is one line for the user."""


class Seal(NamedTuple):
    """What a part says of itself in its first bytes."""

    digest: str
    """SHA-256 of the HDF5 data."""
    content: str
    """SHA-256 of what was recorded, whoever recorded it; parts that do not say it have ``digest`` here."""


def seal(path: Path, content: str | None = None) -> None:
    """Write the SHA-256 of all that follows into the file's first 512 bytes, which HDF5 leaves to the user.

    Whoever reads checks it first: libhdf5 itself may crash on a damaged file, or search it for ever. The digest shows
    damage, not malice: whoever alters a part can seal it again.
    """
    with open(path, "r+b") as file:
        file.seek(USER_BLOCK)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        file.write(f"{SCHEMA}\nsha256 {digest}\n{f'content {content}' if content else ''}\n".encode())


def read_seal(path: Path) -> Seal:
    """What a part states in its first bytes. Raises DatasetError for any other file."""
    block, _ = _read(path, whole=False)
    lines = rb"%s\nsha256 ([0-9a-f]{64})\n(?:content ([0-9a-f]{64})\n)?" % re.escape(SCHEMA.encode())
    written = re.match(lines, block)
    if not written:
        raise DatasetError(f"{path}: not a part of a teacher data set in the format {SCHEMA}")
    return Seal(written[1].decode(), (written[2] or written[1]).decode())


def check_seal(path: Path) -> Seal:
    """The same of an intact part. Raises DatasetError for any other file, without opening it as HDF5."""
    stated = read_seal(path)
    if _read(path, whole=True)[1] != stated.digest:
        raise DatasetError(f"{path}: truncated, or altered since it was written (its digest does not match)")
    return stated


def _read(path: Path, whole: bool) -> tuple[bytes, str | None]:
    """The first bytes of a file; and, if it is read as a whole, the digest of the others."""
    try:
        with open(path, "rb") as file:
            return file.read(USER_BLOCK), hashlib.file_digest(file, "sha256").hexdigest() if whole else None
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except OSError as error:
        raise DatasetError(f"{path}: unreadable ({error.strerror})") from None


def open_verified(path: Path) -> h5py.File:
    """The file behind a part, if everything that is read of it later is laid out as this module says.

    Raises DatasetError for any other file; :func:`check_seal` comes first.
    """
    try:
        file = open_hdf5(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise DatasetError(f"{path}: not HDF5 ({str(error)[:200]!r})") from None
    try:
        _verify(file, path.stat().st_size)
    except (LookupError, TypeError, ValueError, ArithmeticError, OSError, RuntimeError, AttributeError) as error:
        file.close()
        text = str(error)[:200]
        raise DatasetError(f"{path}: damaged ({text if type(error) is DatasetError else repr(error)[:200]})") from None
    return file


def read_readout(attributes: Mapping[str, Any]) -> Readout:
    """What the teacher's outputs are and how it acted."""
    return Readout(attributes["outputs"], attributes["acting"])


def _verify(file: h5py.File, size: int) -> None:
    """Raise DatasetError, or whatever h5py raises, for a file that is not laid out as this module says."""
    attributes = file.attrs
    ids = np.asarray(attributes["action_ids"])
    _require(ids.ndim == 1 and ids.dtype.kind in "iu" and 0 < len(ids) <= MOST_ACTIONS, "action_ids", ids.shape)
    _require(((ids >= 0) & (ids < MOST_ACTIONS)).all(), "action_ids", ids.tolist())
    _require(re.fullmatch(r"[a-z0-9_]{1,64}", str(attributes["game"])) is not None, "game", attributes["game"])
    _require(re.fullmatch(r"[0-9a-f]{64}", str(attributes["teacher"])) is not None, "teacher", attributes["teacher"])
    read_readout(attributes)
    for name in ("part", "seed"):
        _require(isinstance(attributes[name], np.integer), name, attributes[name])
    for name in ("protocol", "settings", "provenance"):
        _require(isinstance(json.loads(attributes[name]), dict), name, attributes[name])
    _require("name" in json.loads(attributes["protocol"]), "protocol", attributes["protocol"])
    times, slots = _array(file, "actions").shape
    _verify_arrays(file, size, times, slots, len(ids))
    _verify_beginnings(file, slots)
    hours = int(attributes["hours"])
    _require(0 < hours <= times and times % hours == 0, "hours", hours)


def _verify_arrays(file: h5py.File, size: int, times: int, slots: int, actions: int) -> None:
    """Shapes, types and how the arrays lie in the file.

    Shapes alone prove nothing: HDF5 can declare terabytes in a few bytes. All but the frames lie in the file as they
    are, so ``size``, the file's, bounds them, and they bound the frames.
    """
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(STEP_ARRAYS, (times, slots))
    shapes["q_values"] = (times, slots, actions)
    types = dict(STEP_ARRAYS)
    games = _array(file, "episodes/complete").shape
    _require(len(games) == 1, "episodes/complete", games)
    for name, dtype in EPISODE_FIELDS.items():
        shapes[f"episodes/{name}"], types[f"episodes/{name}"] = games, dtype
    images = {"frames": times, "context": STACK - 1}
    for name, depth in images.items():
        shapes[name], types[name] = (depth, slots, SIDE, SIDE), "u1"
    for name, shape in shapes.items():
        array, expected = _array(file, name), np.dtype(types[name])
        if array.shape != shape or array.dtype != expected:
            raise DatasetError(f"{name} is {array.shape} {array.dtype}, expected {shape} {expected}")
        if name in images:
            length = min(CHUNK, shape[0])
            _require(array.chunks == (length, 1, SIDE, SIDE), f"chunks of {name}", array.chunks)
            stored = array.id.get_num_chunks()
            _require(stored == -(-shape[0] // length) * slots, f"number of chunks of {name}", stored)
        else:
            bytes_ = array.size * expected.itemsize
            _require(array.chunks is None and array.id.get_storage_size() == bytes_ <= size, f"size of {name}", bytes_)


def _verify_beginnings(file: h5py.File, slots: int) -> None:
    """Every slot has one game that recording began with, at some step of it."""
    first = file["episodes/start"][...] == 0
    _require((file["episodes/slot"][...][first] == np.arange(slots)).all(), "slots of the first games", first.sum())
    steps = file["episodes/first_step"][...]
    _require(((steps >= 0) & (steps < 2**24)).all(), "first_step", steps.min())


def _array(file: h5py.File, name: str) -> h5py.Dataset:
    """An array that lies in the file itself: not behind a link, nor put together from other files."""
    links = [file.get(place, getlink=True) for place in accumulate(name.split("/"), "{}/{}".format)]
    _require(all(isinstance(link, h5py.HardLink) for link in links), name, "behind a link")
    array = file[name]
    _require(isinstance(array, h5py.Dataset), name, type(array).__name__)
    _require(not array.is_virtual and not array.external and array.shape is not None, name, "stored elsewhere")
    return array


def _require(condition: bool | np.bool_, name: str, value: object) -> None:
    if not condition:
        raise DatasetError(f"{name} cannot be {str(value)[:100]!r}")
