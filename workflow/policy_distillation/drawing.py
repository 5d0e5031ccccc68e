"""Pictures of agents at play: the game, who plays, the score and, if asked, what the agent thinks of each action."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ale_py
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .film import Moment
from .losses import KL
from .networks import Agent

Show = Literal["nothing", "values", "probabilities"]

PICTURES_PER_STEP = 2
"""Each the brighter of two emulator frames: games flicker, which is why agents see pairs of frames, too."""
SCALE = 2
HEADER, MARGIN, GAP, BARS, ROW = 52, 12, 16, 168, 21  # pixels
BACKGROUND, TEXT, MUTED, BAR, CHOSEN = "#15181e", "#f3f4f6", "#9ca5b1", "#56606e", "#5aa9e6"


@dataclass(frozen=True)
class Player:
    """Whose play is drawn."""

    title: str
    subtitle: str
    actions: tuple[str, ...]
    """Their names, in the order of the agent's outputs."""
    temperature: float
    """That makes a policy of the outputs: 1 where they are logits, the paper's where they are Q-values."""


def player(agent: Agent, metadata: Mapping[str, Any], game: str) -> Player:
    """An agent as its file describes it."""
    settings = metadata.get("settings", {})
    title = "Teacher" if len(agent.actions) == 1 else "Joint DQN"
    if metadata.get("kind") == "student":
        title = f"Student ({str(settings.get('loss', '?')).upper()})"
    return Player(
        title=title,
        subtitle=f"{agent.parameter_count:,} parameters",
        actions=tuple(ale_py.Action(action).name for action in agent.actions[game]),
        temperature=1.0 if agent.readouts[game].outputs == "logits" else KL.temperature,
    )


def pictures(moments: Iterator[Moment], player: Player, show: Show) -> Iterator[Image.Image]:
    """``PICTURES_PER_STEP`` pictures of every agent step, all of one size."""
    for moment in moments:
        halves = np.array_split(moment.frames, min(PICTURES_PER_STEP, len(moment.frames)))
        for number, frames in enumerate(halves, start=1):
            yield _draw(frames.max(0), moment, player, show, moment.over and number == len(halves))


def _draw(frame: NDArray[np.uint8], moment: Moment, player: Player, show: Show, over: bool) -> Image.Image:
    height, width = frame.shape[0] * SCALE, frame.shape[1] * SCALE
    bars = show != "nothing"
    picture = Image.new("RGB", (width + (BARS if bars else 0), height + HEADER), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, 8), player.title, TEXT, _font(16))
    draw.text((MARGIN, 30), player.subtitle, MUTED, _font(12))
    draw.text((width - MARGIN, 11), f"{moment.score:,.0f}", TEXT, _font(24), anchor="ra")
    game = Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST)
    if over:
        game = Image.blend(game, Image.new("RGB", game.size, BACKGROUND), 0.6)
        ImageDraw.Draw(game).text((width / 2, height / 2), "game over", TEXT, _font(24), anchor="mm")
    picture.paste(game, (0, HEADER))
    if bars:
        _draw_bars(draw, width + MARGIN, moment, player, show)
    return picture


def _draw_bars(draw: ImageDraw.ImageDraw, left: int, moment: Moment, player: Player, show: Show) -> None:
    """A row an action; of values, Q-values or logits, the bars show the differences, of probabilities the size."""
    outputs = moment.outputs.astype(np.float64)
    if show == "probabilities":
        lengths = np.exp((outputs - outputs.max()) / player.temperature)
        lengths /= lengths.sum()
        numbers = [f"{value:.0%}" for value in lengths]
    else:
        lengths = (outputs - outputs.min()) / max(float(np.ptp(outputs)), 1e-9)
        numbers = [f"{value:.2f}" for value in outputs]
    right = left + BARS - 2 * MARGIN
    draw.text((left, 30), show, MUTED, _font(12))
    for row, (name, length, number) in enumerate(zip(player.actions, lengths, numbers, strict=True)):
        top = HEADER + row * ROW
        chosen = row == moment.action
        draw.text((left, top), name.lower(), TEXT if chosen else MUTED, _font(11))
        draw.text((right, top), number, TEXT if chosen else MUTED, _font(11), anchor="ra")
        colour = CHOSEN if chosen else BAR
        draw.rectangle((left, top + 15, left + round(float(length) * (right - left)), top + 18), colour)


def side_by_side(streams: Sequence[Iterator[Image.Image]]) -> Iterator[Image.Image]:
    """Pictures of several agents, four in a row; who has finished stands still until all have."""
    tiles = [next(stream) for stream in streams]
    playing = True
    while playing:
        yield _tiled(tiles)
        fresh = [next(stream, None) for stream in streams]
        playing = any(picture is not None for picture in fresh)
        tiles = [old if new is None else new for new, old in zip(fresh, tiles, strict=True)]


def _tiled(tiles: Sequence[Image.Image]) -> Image.Image:
    columns = min(4, len(tiles))
    rows = -(-len(tiles) // columns)
    width, height = tiles[0].width + GAP, tiles[0].height + GAP
    picture = Image.new("RGB", (columns * width - GAP, rows * height - GAP), BACKGROUND)
    for place, tile in enumerate(tiles):
        picture.paste(tile, (place % columns * width, place // columns * height))
    return picture


@functools.cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
