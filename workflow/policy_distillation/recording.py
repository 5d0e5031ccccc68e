"""Recording: a teacher plays, and one part of its data set is written (:mod:`.dataset_format`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from .acting import rollout
from .atari import SIDE, AtariVector
from .checkpoints import load_agent
from .dataset_format import CHUNK, EPISODE_FIELDS, STEP_ARRAYS, USER_BLOCK, DatasetError, seal
from .files import atomic_path, file_digest
from .networks import Agent
from .protocols import PROTOCOLS
from .training import provenance, select_device, stream


@dataclass(frozen=True)
class Dataset:
    """How a teacher's play is recorded."""

    hours_per_part: int
    steps_per_hour: int
    """Agent steps over all slots (the paper: 15 a second, 54,000)."""
    envs: int
    """Emulators that play in lockstep; must divide steps_per_hour."""
    epsilon: float
    """Probability of a random action (the paper: 0.05); a teacher whose policy is sampled takes none."""


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
        "outputs": teacher.readouts[game].outputs,
        "acting": teacher.readouts[game].acting,
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
