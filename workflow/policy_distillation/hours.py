"""Where a student's hours of play come from: recorded by the teacher, or driven by the student itself.

Either is asked for ``hour(game, hour)`` and answers with the part that an hour of the whole play is in and which of its
hours it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .dataset_format import DatasetError
from .networks import Agent
from .parts import Part
from .recording import Dataset, dump_part
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
        self.digests: dict[str, list[str]] = {game: [] for game in parts}
        for game, paths in parts.items():
            for path in paths:
                part = self.open(game, path)
                self.first.setdefault(game, part)
                self.digests[game].append(part.digest)
        self.close()
        protocols = [part.protocol for part in self.first.values()]
        for part in self.first.values():
            if part.protocol != protocols[0]:
                one = next(iter(self.first.values()))
                raise DatasetError(f"{part.path}: its protocol differs from that of {one.path}")
        self.protocol = protocols[0]
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

    Args:
        recorded: as many hours are played, in as many emulators.
        driver: the student, who acts in ``share`` of the emulators; in the others its teacher does.
        teachers: for each game the teacher's file.
        folder: where an hour lies until it is forgotten.
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
    ) -> None:
        self._recorded, self._driver, self._share = recorded, driver, share
        self._teachers, self._folder, self._seed, self._device = teachers, folder, seed, device

    def hour(self, game: str, hour: int) -> tuple[Part, int]:
        path = self._folder / f"hour-{game}-{hour}.h5"
        if not path.exists():
            like = self._recorded.first[game]
            settings = Dataset(**{**like.settings, "hours_per_part": 1})
            number = int(np.random.SeedSequence(stream(self._seed, "driver", hour)).generate_state(1)[0])
            driven = int(like.slots * self._share)
            play = game, like.protocol["name"], 0, settings, number, path, self._device
            dump_part(self._teachers[game], *play, self._driver, driven)
        return self._recorded.open(game, path), 0

    def forget(self, before: int | None = None) -> None:
        """Delete the hours before this one, or all."""
        for path in self._folder.glob("hour-*.h5"):
            if before is None or int(path.stem.rsplit("-", 1)[1]) < before:
                path.unlink()

    def close(self) -> None:
        self._recorded.close()
