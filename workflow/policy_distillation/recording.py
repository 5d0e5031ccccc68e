"""Recording: a teacher plays, and a part of its data set is written (:mod:`.dataset_format`).

A part may be short beside a game: an hour of 54,000 steps over ten emulators is 5,400 steps of each, and games last
thousands. So that it meets every stretch of a game as often as the teacher does, recording begins in the middle of
games (:meth:`.play.Play.start_anywhere`). That costs one unrecorded game of every emulator, and half of one played
again without the teacher: the fewer emulators, the less.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from .atari import SIDE, STACK, action_ids
from .checkpoints import load_agent
from .dataset_format import CHUNK, EPISODE_FIELDS, STEP_ARRAYS, USER_BLOCK, DatasetError, seal
from .files import atomic_path, file_digest, written_alone
from .hdf5 import open_hdf5
from .header import protocol_name
from .networks import Agent
from .parts import Part
from .play import Play, Transition
from .protocols import PROTOCOLS
from .provenance import provenance
from .training import computed, select_device, stream


@dataclass(frozen=True)
class Dataset:
    """How a teacher's play is recorded."""

    hours_per_part: int
    steps_per_hour: int
    """Agent steps over all slots (the paper: 15 a second, 54,000)."""
    envs: int
    """Emulators that play in lockstep; must divide steps_per_hour."""
    epsilon: float | Sequence[float]
    """Probability of a random action (the paper: 0.05); a teacher whose policy is sampled takes none. Several are the
    emulators' in turn: the larger ones show how the teacher comes back from where it would not go by itself, for which
    DART (Laskey et al. 2017) adds noise, too; the smaller ones, how its games go on."""
    warmup_steps: int = 0
    """Most steps of the game that each emulator plays before recording begins somewhere in those games. With 0, it
    begins with new games."""

    @property
    def epsilons(self) -> NDArray[np.float64]:
        """Each emulator's, (envs,)."""
        return np.resize(np.asarray(self.epsilon, np.float64), self.envs)


def dump_part(
    teacher_path: Path,
    game: str,
    protocol: str,
    part: int,
    settings: Dataset,
    seed: int,
    path: Path,
    device: str = "auto",
) -> None:
    """Let a teacher play and write one part. Parts draw from random streams of their own: none repeats another.

    Raises Locked where another process writes it.
    """
    if settings.steps_per_hour % settings.envs:
        raise DatasetError(f"envs ({settings.envs}) must divide steps_per_hour ({settings.steps_per_hour})")
    with written_alone(path):  # a job whose Snakemake was killed may still be at it
        teacher = load_teacher(teacher_path, game, protocol, device)
        play = Play(game, PROTOCOLS[protocol], settings.envs, stream(seed, "dataset", game, part))
        play.start_anywhere(teacher, settings.epsilons, settings.warmup_steps)
        attributes = {"part": part, "seed": seed, "teacher": file_digest(teacher_path)}
        record(play, teacher, settings, path, attributes)
        play.close()
    with Part(path) as written:
        print("\n".join(written.coverage().lines()))


def load_teacher(path: Path, game: str, protocol: str, device: str) -> Agent:
    """The agent, if it was made for this protocol and its actions are the game's. Raises DatasetError."""
    teacher, metadata = load_agent(path, select_device(device))
    trained = protocol_name(metadata, path)
    if trained != protocol:
        raise DatasetError(f"{path}: trained under {trained}, but data is wanted under {protocol}")
    ids = action_ids(game, PROTOCOLS[protocol])
    if list(teacher.actions.get(game, ())) != ids:
        raise DatasetError(f"{path}: its actions for {game} are not the protocol's {ids}")
    return teacher


def record(
    play: Play,
    teacher: Agent,
    settings: Dataset,
    path: Path,
    attributes: Mapping[str, Any],
    driver: Agent | None = None,
    driven: int = 0,
) -> None:
    """Write the next hours of play as a part. Play goes on from where it is, and stays where it ends.

    Args:
        attributes: part, seed and teacher (:mod:`.dataset_format`).
        driver: a student that acts in the first ``driven`` slots; the teacher says what it thinks of them all.
    """
    slots = len(play.steps)
    times = settings.hours_per_part * settings.steps_per_hour // slots
    arrays = {name: np.zeros((times, slots), dtype) for name, dtype in STEP_ARRAYS.items()}
    arrays["q_values"] = np.zeros((times, slots, len(play.env.action_ids)), np.float32)
    described = {**_attributes(play, teacher, settings), **attributes}
    content = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    episodes, epsilons = _Episodes(play), settings.epsilons
    made_by = {**provenance(), "computed": computed(teacher.device, "float32")}  # now: code may be edited meanwhile
    with atomic_path(path) as temporary:
        with open_hdf5(temporary, "w", userblock_size=USER_BLOCK) as file:
            frames = _frames(file, "frames", times, slots)
            context = np.ascontiguousarray(play.observations[:, :-1].swapaxes(0, 1))
            _frames(file, "context", STACK - 1, slots)[...] = context
            content.update(context.data)
            block = np.zeros((CHUNK, slots, SIDE, SIDE), np.uint8)
            for time in range(times):
                # Labels are for ever, so the teacher answers in float32.
                transition = play.step(teacher, epsilons, driver, driven)
                block[time % CHUNK] = transition.observations[:, -1]
                arrays["q_values"][time] = transition.q_values
                arrays["actions"][time] = transition.actions
                arrays["rewards"][time] = transition.step.rewards
                arrays["terminations"][time] = transition.step.terminations
                arrays["truncations"][time] = transition.step.truncations
                episodes.add(time, transition, play)
                if (time + 1) % CHUNK == 0 or time + 1 == times:
                    first = time // CHUNK * CHUNK
                    frames[first : time + 1] = block[: time + 1 - first]
                    content.update(block[: time + 1 - first].data)
                if (time + 1) % max(1, times // 10) == 0:
                    print(f"step {(time + 1) * slots:>9,} of {times * slots:,}", flush=True)
            games = episodes.table(arrays["rewards"])
            for name, values in {**arrays, **{f"episodes/{field}": column for field, column in games.items()}}.items():
                file[name] = values
                content.update(values.data)
            file.attrs.update({**described, "provenance": json.dumps(made_by)})
        seal(temporary, content.hexdigest())


def _attributes(play: Play, teacher: Agent, settings: Dataset) -> dict[str, Any]:
    game = play.env.game
    return {
        "game": game,
        "protocol": json.dumps(asdict(play.env.protocol)),
        "action_ids": play.env.action_ids,
        "hours": settings.hours_per_part,
        "outputs": teacher.readouts[game].outputs,
        "acting": teacher.readouts[game].acting,
        "settings": json.dumps(asdict(settings)),
    }


def _frames(file: h5py.File, name: str, times: int, slots: int) -> h5py.Dataset:
    shape, chunks = (times, slots, SIDE, SIDE), (min(CHUNK, times), 1, SIDE, SIDE)
    return file.create_dataset(name, shape, "u1", chunks=chunks, **hdf5plugin.Zstd(clevel=3))


class _Episodes:
    """The table of games: of each, the stretch that was recorded."""

    def __init__(self, play: Play) -> None:
        """Of every slot, the game in progress: (slot, first time recorded, the game's step at that time, seed)."""
        self._open = [(slot, 0, int(play.steps[slot]), int(play.seeds[slot])) for slot in range(len(play.steps))]
        self._rows: list[dict[str, Any]] = []
        self._times = 0

    def add(self, time: int, transition: Transition, play: Play) -> None:
        """After a step: close the games that ended with it; open those that began."""
        self._times = time + 1
        for slot in np.flatnonzero(transition.step.episode_ends).tolist():
            self._close(slot, ended=True)
            self._open[slot] = (slot, time + 1, 0, int(play.seeds[slot]))

    def _close(self, number: int, ended: bool) -> None:
        slot, start, first_step, seed = self._open[number]
        if start < self._times:
            row = {"slot": slot, "start": start, "first_step": first_step, "length": self._times - start, "seed": seed}
            self._rows.append({**row, "complete": ended and first_step == 0})

    def table(self, rewards: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """The columns, in order of (slot, start); what is not over by now is cut."""
        for number in range(len(self._open)):
            self._close(number, ended=False)
        rows = sorted(self._rows, key=lambda row: (row["slot"], row["start"]))
        for row in rows:
            earned = rewards[row["start"] : row["start"] + row["length"], row["slot"]]
            row["return"] = float(earned.sum(dtype=np.float64))
        return {name: np.array([row[name] for row in rows], dtype) for name, dtype in EPISODE_FIELDS.items()}
