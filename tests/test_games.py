"""The games' names, as ale-py, Gymnasium and the configuration spell them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ale_py
import gymnasium
import policy_distillation
import pytest
from ale_py import roms
from policy_distillation.games import FOR_TWO, GameError, game_name, known_games, with_game_names

PACKAGE = str(Path(policy_distillation.__file__).parent.parent)
gymnasium.register_envs(ale_py)


def python(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": PACKAGE}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def test_known_games_are_ale_pys_without_importing_it() -> None:
    done = python(
        "import sys; from policy_distillation.games import known_games; print(*known_games());"
        "sys.exit(any(name in sys.modules for name in ('ale_py', 'gymnasium', 'torch')))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted({*roms.get_all_rom_ids()} - {*FOR_TWO}) == known_games()
    paper = "beam_rider breakout enduro freeway ms_pacman pong qbert riverraid seaquest space_invaders"
    assert set(paper.split()) <= set(known_games())


@pytest.mark.slow
def test_every_known_game_loads_and_no_other_does() -> None:
    """The emulator ends the process where it cannot play, so each refused game has a process of its own."""
    load = (
        "import ale_py, sys; from policy_distillation.games import known_games\n"
        "ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)\n"
        "for game in {}: ale_py.ALEInterface().loadROM(ale_py.roms.get_rom_path(game))"
    )
    assert python(load.format("known_games()")).returncode == 0
    for game in FOR_TWO:
        assert python(load.format([game])).returncode != 0


def test_every_id_that_gymnasium_has_is_understood() -> None:
    ids = {name: spec.kwargs["game"] for name, spec in gymnasium.registry.items() if "ale_py" in str(spec.entry_point)}
    assert len(ids) > 300
    assert {"PongNoFrameskip-v4", "ALE/MsPacman-v5", "Qbert-ramDeterministic-v4"} & ids.keys()
    assert {name: game_name(name) for name in ids} == ids
    assert game_name("Pong") == game_name("pong") == game_name("PongDeterministic-v0") == "pong"


@pytest.mark.parametrize("spelling", ["Pongg-v5", "", "../pong", "ALE/", "-v4", "pong\n"])
def test_what_is_no_game_is_refused(spelling: str) -> None:
    with pytest.raises(GameError, match=r"unknown game .*; allowed: adventure, .*zaxxon; or as Gymnasium") as caught:
        game_name(spelling)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spelling", ["joust", "ALE/MazeCraze-v5"])
def test_what_cannot_be_played_says_why(spelling: str) -> None:
    with pytest.raises(GameError, match="is for two players"):
        game_name(spelling)


def test_a_configuration_may_spell_games_as_gymnasium_does() -> None:
    assert with_game_names(
        {
            "game_sets": {"two": ["ALE/Pong-v5", "qbert"]},
            "experiments": {"x": {"games": ["two", "MsPacmanNoFrameskip-v4", "Nope-v4"], "title": "Pong"}, "y": None},
            "teacher": {"source": "Pong", "games": {"ALE/Pong-v5": {"source": "train"}}},
            "evaluation": {"games": {"BreakoutNoFrameskip-v4": {"episodes": 8}}, "episodes": 4},
            "protocol": "Pong",
        }
    ) == {
        "game_sets": {"two": ["pong", "qbert"]},
        "experiments": {"x": {"games": ["two", "ms_pacman", "Nope-v4"], "title": "Pong"}, "y": None},
        "teacher": {"source": "Pong", "games": {"pong": {"source": "train"}}},
        "evaluation": {"games": {"breakout": {"episodes": 8}}, "episodes": 4},
        "protocol": "Pong",
    }
    for section in ("teacher", "evaluation"):
        with pytest.raises(GameError, match="games: 'ALE/Pong-v5' and 'pong' are the same game; allowed: one of them"):
            with_game_names({section: {"games": {"ALE/Pong-v5": {}, "qbert": {}, "pong": {}}}})
    assert with_game_names({"game_sets": 3, "experiments": {"x": 4}}) == {"game_sets": 3, "experiments": {"x": 4}}
