"""The games that can be played, and their names as others spell them.

Imports nothing heavy: every cluster job parses the workflow.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

FOR_TWO = ("combat", "joust", "maze_craze", "warlords")
"""ale-py ships these games but does not support them, and its C++ library ends the whole process that loads one."""


class GameError(ValueError):
    """One line for the user: what is no game, and which ones there are."""


@functools.cache
def known_games() -> list[str]:
    """Names of the games that ale-py can play, found without importing it (a workflow parses this in every job)."""
    spec = importlib.util.find_spec("ale_py")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("ale-py is not installed: run `make env`")
    shipped = (path.stem for path in (Path(spec.origin).parent / "roms").glob("*.bin"))
    return sorted(set(shipped) - set(FOR_TWO))


def game_name(spelling: str) -> str:
    """A game's name, however Gymnasium spells it: pong for Pong, ALE/Pong-v5 or PongNoFrameskip-v4.

    Raises GameError where that is no game, or one that cannot be played.
    """
    plain = re.sub(r"^ALE/|(-ram)?(NoFrameskip|Deterministic)?-v\d+$", "", spelling).replace("_", "").lower()
    for name in known_games():
        if plain == name.replace("_", ""):
            return name
    for name in FOR_TWO:
        if plain == name.replace("_", ""):
            raise GameError(f"the game {name!r} is for two players, which the emulator cannot play with one agent")
    close = "".join(f", perhaps {name}" for name in get_close_matches(plain, known_games(), 1))
    raise GameError(
        f"unknown game {spelling!r}{close}; allowed: {', '.join(known_games())}; or as Gymnasium spells them"
    )


def camel_case(game: str) -> str:
    """``space_invaders`` is ``SpaceInvaders``, as the emulator's environments and the paper have it."""
    return "".join(word.capitalize() for word in game.split("_"))


def with_game_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration, or a part of one, in which each game that Gymnasium spells otherwise has this project's name.

    What is no game, such as the name of a set, stays as it is. Raises GameError where two keys name the same game: one
    of their entries would be lost.
    """

    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(entry) for entry in value]
        if not isinstance(value, str) or re.fullmatch("[a-z0-9_]*", value):
            return value
        try:
            return game_name(value)
        except GameError:
            return value

    def within(section: Any, change: Any) -> Any:
        return {key: change(key, value) for key, value in section.items()} if isinstance(section, Mapping) else section

    def games(key: str, value: Any) -> Any:
        if key != "games":
            return value
        if not isinstance(value, Mapping):
            return named(value)
        spelt: dict[Any, Any] = {}
        for spelling in value:
            if (other := spelt.setdefault(named(spelling), spelling)) != spelling:
                raise GameError(f"games: {other!r} and {spelling!r} are the same game; allowed: one of them")
        return {name: value[spelling] for name, spelling in spelt.items()}

    changes = {
        "game_sets": lambda section: within(section, lambda _, members: named(members)),
        "experiments": lambda section: within(section, lambda _, experiment: within(experiment, games)),
        "teacher": lambda section: within(section, games),
        "evaluation": lambda section: within(section, games),
    }
    return {key: changes[key](value) if key in changes else value for key, value in config.items()}
