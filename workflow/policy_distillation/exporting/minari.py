"""A teacher's data set as a Minari data set: one HDF5 file of episodes, read by ``minari.load_dataset``.

An episode of T steps has observations (T + 1, 4, 84, 84), actions, rewards, terminations and truncations (T), and the
teacher's Q-values in ``infos["q_values"]``, or its logits in ``infos["logits"]`` (T + 1, actions).

**The last observation.** The emulator starts the next game within the step that ends one, so what the screen showed
after a game's last action was never recorded. The observation before it stands in its place, and NaN for its Q-values
says so. Nothing that learns from transitions looks at it after a termination; after a truncation by the frame cap the
bootstrap is one step old. A game that the recording's end cut short loses its last step instead: what that step led to
was not seen, all before it was, and its last step is marked as a truncation.

**Compression.** Stacks repeat each frame four times, which gzip finds; whatever reads HDF5 reads gzip.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np

from ..atari import SIDE, STACK
from ..files import check_output
from ..hdf5 import open_hdf5
from ..parts import Part
from ..readouts import describe_acting
from . import ExportError
from .environment import environment_spec, read_protocol

IDENTIFIER = re.compile(r"(?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+-v[0-9]+")
CHUNK = 16
"""Observations that are compressed together."""
BLOCK = 64 * CHUNK
"""Observations in memory."""


@dataclass(frozen=True)
class Episode:
    """A game in a part: steps ``start`` to ``stop`` of one slot."""

    slot: int
    start: int
    stop: int
    ended: bool
    """The game ended with its last step; else the recording did."""

    @property
    def steps(self) -> int:
        return self.stop - self.start - (not self.ended)


def export_minari(paths: Sequence[Path], identifier: str, root: Path | None = None) -> Path:
    """Write parts of one game's data set as a Minari data set; returns its folder.

    Args:
        paths: parts of one teacher's data.
        identifier: the data set's name for Minari, such as ``pong/teacher-v0``.
        root: where Minari's data sets lie; by default where Minari looks, ``$MINARI_DATASETS_PATH`` or
            ``~/.minari/datasets``.
    """
    if not IDENTIFIER.fullmatch(identifier):
        raise ExportError(f"{identifier!r} is no name for a Minari data set; allowed: NAME-v0, or SPACE/NAME-v0")
    root = root or Path(os.environ.get("MINARI_DATASETS_PATH", Path.home() / ".minari" / "datasets"))
    check_output(root, folder=True)
    folder = root / identifier
    if folder.exists():
        raise ExportError(f"{folder} exists; choose another name, such as a higher version, or remove it")
    with ExitStack() as stack:
        parts = [stack.enter_context(Part(path)) for path in paths]
        for number, part in enumerate(parts):
            for other in parts[:number]:
                if part.digest == other.digest:
                    raise ExportError(f"{part.path}: the same part as {other.path}")
            for name in ("game", "action_ids", "protocol", "teacher", "readout"):
                if getattr(part, name) != getattr(parts[0], name):
                    raise ExportError(f"{part.path}: its {name} is not that of {parts[0].path}")
        unfinished = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            _write(unfinished / "data", identifier, parts)
            os.replace(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _write(folder: Path, identifier: str, parts: Sequence[Part]) -> None:
    folder.mkdir(parents=True)
    counts: list[int] = []
    with open_hdf5(folder / "main_data.hdf5", "w") as file:
        for part in parts:
            for episode in episodes(part):
                _write_episode(file, len(counts), part, episode)
                counts.append(episode.steps)
    metadata = _metadata(identifier, parts, counts, (folder / "main_data.hdf5").stat().st_size)
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")


def episodes(part: Part) -> Iterator[Episode]:
    """The games in a part that have a step to tell of, slot by slot."""
    ends = part.read("terminations", 0, part.times) | part.read("truncations", 0, part.times)
    for slot in range(part.slots):
        last = np.flatnonzero(ends[:, slot])
        for start, stop in zip([0, *(last + 1)], [*(last + 1), part.times], strict=True):
            episode = Episode(slot, int(start), int(stop), stop in last + 1)
            if stop > start and episode.steps > 0:
                yield episode


def _write_episode(file: h5py.File, number: int, part: Part, episode: Episode) -> None:
    start, slot, steps = episode.start, episode.slot, episode.steps
    group = file.create_group(f"episode_{number}")
    shape = (steps + 1, STACK, SIDE, SIDE)
    chunks = (min(CHUNK, shape[0]), *shape[1:])
    observations = group.create_dataset("observations", shape, "u1", chunks=chunks, compression="gzip")
    for first in range(0, episode.stop - start, BLOCK):
        times = np.arange(start + first, min(start + first + BLOCK, episode.stop))
        seen = part.observations(times, np.full(len(times), slot))
        observations[first : first + len(seen)] = seen
    q_values = part.read("q_values", start, episode.stop)[:, slot]
    arrays = {
        name: part.read(name, start, start + steps)[:, slot]
        for name in ("actions", "rewards", "terminations", "truncations")
    }
    arrays["actions"] = arrays["actions"].astype(np.int64)
    if episode.ended:
        observations[steps] = observations[steps - 1]
        q_values = np.concatenate([q_values, np.full_like(q_values[-1:], np.nan)])
    else:
        arrays["truncations"][-1] = True
    for name, values in {**arrays, f"infos/{part.readout.outputs}": q_values}.items():
        group.create_dataset(name, data=values, compression="gzip")
    group.attrs.update(
        {
            "id": number,
            "total_steps": steps,
            "rewards_sum": float(arrays["rewards"].sum(dtype=np.float64)),
            "part": part.path.name,
            "slot": slot,
            "from_the_beginning": bool(part.ages[start, slot] == 0),
        }
    )


def _metadata(identifier: str, parts: Sequence[Part], counts: Sequence[int], size: int) -> dict[str, Any]:
    import minari
    from minari.serialization import serialize_space

    part = parts[0]
    environment = environment_spec(part.game, read_protocol(part.protocol, part.path))
    return {
        "dataset_id": identifier,
        "minari_version": minari.__version__,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "total_episodes": len(counts),
        "total_steps": sum(counts),
        "dataset_size": round(size / 1e6, 1),
        "observation_space": serialize_space(gymnasium.spaces.Box(0, 255, (STACK, SIDE, SIDE), np.uint8)),
        "action_space": serialize_space(gymnasium.spaces.Discrete(len(part.action_ids))),
        **({"env_spec": environment} if environment else {}),
        "algorithm_name": f"policy-distillation teacher, {describe_acting(part.readout)}",
        "description": (
            f"What a teacher saw, thought and did in {part.game}; its outputs are in infos['{part.readout.outputs}']. "
            "After the last action of a game that ended the observation before it is repeated, with NaN as its outputs"
        ),
        "game": part.game,
        "action_ids": part.action_ids,
        "protocol": part.protocol,
        "teacher": part.teacher,
        "readout": part.readout.to_json(),
        "settings": part.settings,
        "parts": {each.path.name: each.digest for each in parts},
    }
