"""Where a student's hours of play come from: recorded by the teacher, or driven by the student itself.

Either is asked for ``hour(game, hour)`` and answers with the part that an hour of the whole play is in and which of its
hours it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .dataset_format import DatasetError
from .files import discard, file_digest
from .networks import Agent
from .parts import Part
from .play import Play
from .protocols import PROTOCOLS
from .recording import Dataset, load_teacher, record
from .stopping import StopSignal
from .training import stream


class RecordedHours:
    """The hours of the teachers' data sets, part after part; one part a game is open at a time.

    Args:
        parts: for each game the paths of its data set's parts, in order. Each is opened once now: better refused now
            than after a day.
        same: what all parts of a game must share beside emulators, actions and protocol: ``hours``, ``teacher``.
    """

    def __init__(self, parts: Mapping[str, Sequence[Path]], same: Sequence[str] = ()) -> None:
        self._paths, self._same = parts, (*same, "times_per_hour", "slots", "protocol", "action_ids", "readout")
        self._opened: dict[str, Part] = {}
        self.first: dict[str, Part] = {}
        """The first part of each game, closed again: what it says of itself."""
        self.teachers: dict[str, str] = {}
        """The digest of each game's teacher; of one that was still learning, of the snapshot that taught last."""
        self.digests: dict[str, list[str]] = {game: [] for game in parts}
        for game, paths in parts.items():
            for path in paths:
                part = self.open(game, path)
                self.first.setdefault(game, part)
                self.teachers[game] = part.teacher
                self.digests[game].append(part.content)
        self.close()
        one, *others = self.first.values()
        for part in others:
            if part.protocol != one.protocol:
                raise DatasetError(f"{part.path}: its protocol differs from that of {one.path}")
        self.protocol = one.protocol
        self.count = min(part.hours * len(parts[game]) for game, part in self.first.items())
        """Hours of play that every game has."""

    def hour(self, game: str, hour: int) -> tuple[Part, int]:
        index, within = divmod(hour, self.first[game].hours)
        return self.open(game, self._paths[game][index]), within

    def open(self, game: str, path: Path) -> Part:
        """The part at ``path``, in place of the one of this game that was open. Raises DatasetError."""
        if game in self._opened and self._opened[game].path == path:
            return self._opened[game]
        if game in self._opened:
            self._opened.pop(game).close()
        part = self._opened[game] = Part(path)
        if part.game != game:
            raise DatasetError(f"{path}: holds {part.game}, expected {game}")
        like = self.first.get(game, part)
        for name in self._same:
            if getattr(part, name) != getattr(like, name):
                raise DatasetError(f"{path}: its {name} differs from that of {like.path}")
        return part

    def forget(self, before: int) -> None:
        """Earlier hours than this one will not be asked for again; recorded ones stay where they are."""

    def close(self) -> None:
        while self._opened:
            self._opened.popitem()[1].close()


class DrivenHours:
    """Hours that the student plays and the teacher labels (DAgger, Ross et al. 2011; Czarnecki et al. 2019).

    The first hour is the one that the teacher recorded, as DAgger's first iteration is the expert's: nobody has learnt
    yet. From then on the student acts, in emulators that live on from hour to hour and begin in the middle of games of
    the teacher's.

    Args:
        recorded: as many hours are played, in as many emulators.
        driver: the student as it is scored, who acts in ``share`` of the emulators; in the others its teacher does.
        teachers: for each game the teacher's file.
        folder: where an hour lies until it is forgotten.
        stop: a flag that ends an hour in the middle, by Stopped; what is saved then is as if it had not begun.
    """

    def __init__(
        self,
        recorded: RecordedHours,
        driver: Agent,
        share: float,
        teachers: Mapping[str, Path],
        folder: Path,
        seed: int,
        device: str,
        stop: StopSignal | None = None,
    ) -> None:
        self._recorded, self._driver, self._share = recorded, driver, share
        self._teachers, self._folder, self._seed, self._device, self._stop = teachers, folder, seed, device, stop
        self._games: dict[str, _DrivenGame] = {}
        self._saved: dict[str, dict[str, Any]] = {}  # of games that nobody has played on yet
        for part in recorded.first.values():
            if not int(part.slots * share):
                raise DatasetError(f"{part.path}: one emulator cannot be shared; driver: mix needs two or more")

    def hour(self, game: str, hour: int) -> tuple[Part, int]:
        if hour == 0:
            return self._recorded.hour(game, 0)
        path = self._path(game, hour)
        if not path.exists():
            if game not in self._games:
                like, seed = self._recorded.first[game], stream(self._seed, "driver", game)
                state = self._saved.get(game)
                self._games[game] = _DrivenGame(like, self._teachers[game], seed, self._device, state, self._stop)
                self._saved.pop(game, None)
            self._games[game].record(path, hour, self._seed, self._driver, self._share)
        return self._recorded.open(game, path), 0

    def _path(self, game: str, hour: int) -> Path:
        return self._folder / f"hour-{game}-{hour}.h5"

    def state_dict(self) -> dict[str, Any]:
        return {**self._saved, **{game: driven.state_dict() for game, driven in self._games.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; hours that were played later are forgotten, and will be played again."""
        self._saved = state
        for path in self._folder.glob("hour-*.h5"):
            _, game, hour = path.stem.split("-")
            if game not in state or int(hour) > state[game]["hour"]:
                path.unlink()

    def files(self, since: int) -> list[Path]:
        """Where the hours lie that were played, from this one on."""
        last = {game: state["hour"] for game, state in self._saved.items()}
        last |= {game: driven.hour for game, driven in self._games.items()}
        return [self._path(game, hour) for game in last for hour in range(max(1, since), last[game] + 1)]

    def forget(self, before: int | None = None) -> None:
        """Delete the hours before this one, or all."""
        for path in self._folder.glob("hour-*.h5"):
            if before is None or int(path.stem.rsplit("-", 1)[1]) < before:
                discard(path)

    def close(self) -> None:
        self._recorded.close()
        for driven in self._games.values():
            driven.play.close()


class _DrivenGame:
    """One game's emulators and the teacher that labels what is seen in them."""

    def __init__(
        self,
        like: Part,
        teacher_path: Path,
        seed: Sequence[int],
        device: str,
        state: dict[str, Any] | None,
        stop: StopSignal | None,
    ) -> None:
        self._settings = replace(Dataset(**like.settings), hours_per_part=1)
        self._teacher = load_teacher(teacher_path, like.game, like.protocol["name"], device)
        self._digest = file_digest(teacher_path)
        self.hour = 0
        self._before: dict[str, Any] | None = None  # the play when the hour began that is being recorded
        self.play = Play(like.game, PROTOCOLS[like.protocol["name"]], like.slots, seed, stop)
        if state is None:
            self.play.start_anywhere(self._teacher, self._settings.epsilons, self._settings.warmup_steps)
        else:
            self.hour = state["hour"]
            self.play.load_state_dict(state["play"])

    def record(self, path: Path, hour: int, seed: int, driver: Agent, share: float) -> None:
        """Play the next hour and write it."""
        attributes = {"part": hour, "seed": seed, "teacher": self._digest}
        driven = int(len(self.play.steps) * share)
        self._before = self.play.state_dict()
        record(self.play, self._teacher, self._settings, path, attributes, driver, driven)
        self._before, self.hour = None, hour

    def state_dict(self) -> dict[str, Any]:
        return {"hour": self.hour, "play": self._before or self.play.state_dict()}
