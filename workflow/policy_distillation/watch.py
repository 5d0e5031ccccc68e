"""Watch agents play, in a window or as a video file: ``watch AGENT``, ``record AGENT``; several agents side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from PIL import Image

from .acting import EPSILON
from .atari import FRAME_SKIP
from .checkpoints import load_agent
from .drawing import PICTURES_PER_STEP, Show, pictures, player, side_by_side
from .files import check_output
from .film import FRAMES_PER_SECOND, Moment, play_in_colour
from .games import game_name
from .header import protocol_name
from .protocols import ProtocolName
from .training import prepare_process, select_precision
from .video import find_encoder, write_video
from .window import NoDisplay, show

STEPS_PER_SECOND = FRAMES_PER_SECOND / FRAME_SKIP
RATE = round(STEPS_PER_SECOND * PICTURES_PER_STEP)
"""Pictures a second."""
LONGEST = 10**9
"""Steps that may be asked for, beyond any game's end: --seconds inf."""

Agents = Annotated[tuple[Path, ...], tyro.conf.Positional]


@dataclass(frozen=True)
class View:
    """What is played, and how it is shown."""

    game: str | None = None
    """which game; needed where the agents play several."""
    protocol: ProtocolName | None = None
    """how the emulator is driven; the one the first agent was made under by default."""
    show: Show = "nothing"
    """what to draw beside the game: each action's value (a Q-value or a logit) or probability."""
    epsilon: float = EPSILON
    """probability of a random action."""
    seed: int = 0
    """of emulators and exploration: the game is the one that `evaluate --episodes 1 --envs 1` plays."""
    seconds: float = 180.0
    """of play at which to stop, at the speed at which people play."""


class Showing:
    """The pictures of one game, played by one or more agents from the same seed, and how it went.

    Args:
        titles: what to call the agents; by default what their files say of them.

    Raises ValueError where there is no agent, or no game that all of them play.
    """

    def __init__(self, agents: Sequence[Path], view: View, titles: Sequence[str] | None = None) -> None:
        if not agents:
            raise ValueError("which agent? Give the path of an agent.safetensors")
        if not 0 <= view.epsilon <= 1:
            raise ValueError(f"--epsilon {view.epsilon:g} is no probability; allowed: 0 to 1")
        if not view.seconds * STEPS_PER_SECOND >= 1:
            raise ValueError(
                f"--seconds {view.seconds:g} shows not a single step; allowed: {1 / STEPS_PER_SECOND:.2f} or more"
            )
        self._view, self._loaded = view, [load_agent(path) for path in agents]
        self.game = _common_game(
            agents, [set(agent.actions) for agent, _ in self._loaded], view.game and game_name(view.game)
        )
        self._protocol = view.protocol or protocol_name(self._loaded[0][1], agents[0])
        self._players = [player(agent, metadata, self.game) for agent, metadata in self._loaded]
        if titles is not None:
            self._players = [replace(who, title=title) for who, title in zip(self._players, titles, strict=True)]
        self._last: dict[int, Moment] = {}

    def __iter__(self) -> Iterator[Image.Image]:
        return side_by_side([self._pictures(number) for number in range(len(self._loaded))])

    def _pictures(self, number: int) -> Iterator[Image.Image]:
        agent, view = self._loaded[number][0], self._view
        precision = select_precision("auto", agent.device)
        moments = play_in_colour(agent, self.game, self._protocol, view.epsilon, view.seed, precision)
        moments = itertools.islice(moments, int(min(view.seconds * STEPS_PER_SECOND, LONGEST)))
        return pictures(self._noted(number, moments), self._players[number], view.show)

    def _noted(self, number: int, moments: Iterator[Moment]) -> Iterator[Moment]:
        for moment in moments:
            self._last[number] = moment
            yield moment

    @property
    def outcome(self) -> str:
        """Who scored what so far."""
        ends = [self._last[number] for number in sorted(self._last)]
        return ", ".join(f"{end.score:g}" + ("" if end.over else " (stopped)") for end in ends)


def _common_game(agents: Sequence[Path], games: Sequence[set[str]], wanted: str | None) -> str:
    common = sorted(set.intersection(*games))
    if wanted is not None:
        for path, plays in zip(agents, games, strict=True):
            if wanted not in plays:
                raise ValueError(f"{path} does not play {wanted}; it plays {', '.join(sorted(plays))}")
        return wanted
    if not common:
        each = (f"{path} plays {', '.join(sorted(plays))}" for path, plays in zip(agents, games, strict=True))
        raise ValueError(f"these agents share no game: {'; '.join(each)}")
    if len(common) > 1:
        raise ValueError(
            f"which game? Name it with --game; {'these agents share' if len(agents) > 1 else 'this agent plays'}"
            f" {', '.join(common)}"
        )
    return common[0]


def record(agents: Agents, view: Annotated[View, tyro.conf.arg(name="")] = View(), output: Path | None = None) -> None:
    """Play a game and write it as a video; several agents play side by side, from the same seed.

    Args:
        agents: one or more agents' files.
        output: an .mp4 or a .gif; by default {game}.mp4.
    """
    prepare_process(view.seed, threads=1)
    showing = Showing(agents, view)
    path = output or Path(f"{showing.game}.mp4")
    find_encoder(path, view.seconds)  # better refused now than after a game
    check_output(path, agents)
    write_video(iter(showing), path, RATE)
    print(f"{path}: {showing.game}, score {showing.outcome}; {path.stat().st_size / 1e6:.1f} MB")


def _free(game: str) -> Path:
    """A name for a video that nobody named, so that none is overwritten: pong.mp4, pong-2.mp4, ..."""
    names = itertools.chain([game], (f"{game}-{number}" for number in itertools.count(2)))
    return next(path for name in names if not (path := Path(f"{name}.mp4")).exists())


def watch(agents: Agents, view: Annotated[View, tyro.conf.arg(name="")] = View()) -> None:
    """Watch an agent play, in a window; without a display, write a video instead. Escape closes the window.

    Args:
        agents: one or more agents' files; several play side by side, from the same seed.
    """
    prepare_process(view.seed, threads=1)
    showing = Showing(agents, view)
    try:
        show(iter(showing), f"{showing.game}: {', '.join(map(str, agents))}", RATE)
    except NoDisplay as error:
        print(f"no window ({error}); writing a video instead")
        record(agents, view, _free(showing.game))
    else:
        print(f"{showing.game}: score {showing.outcome}")
