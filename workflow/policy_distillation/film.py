"""One game in colour: what an agent saw, thought and did, and the emulator's own pictures of what came of it.

The vector environment cannot render. It plays the game, exactly as in evaluation; a second emulator, in colour, plays
along with the same seed, the same start and the same actions. Both are deterministic, so their pictures agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import ale_py
import numpy as np
from numpy.typing import NDArray

from .acting import choose
from .atari import FRAME_SKIP, AtariVector, action_ids
from .evaluate import check_actions
from .networks import Agent, Precision
from .protocols import PROTOCOLS, Protocol
from .training import exploration_rng, stream

FRAMES_PER_SECOND = 60
"""The emulator's, at the speed at which people play."""


@dataclass(frozen=True)
class Moment:
    """One agent step."""

    observation: NDArray[np.uint8]
    """(4, 84, 84): what the agent saw."""
    outputs: NDArray[np.float32]
    """(actions,): what it thought of each action, as Q-values or logits."""
    action: int
    """What it did: an index into the game's actions."""
    frames: NDArray[np.uint8]
    """(4, height, width, 3): the emulator's frames that followed, in colour; fewer where the game ended."""
    score: float
    """Of the game up to here, unclipped."""
    over: bool
    """The game ended with this step, by itself or at the protocol's limit."""


class ColourEmulator:
    """An emulator in which a game of the vector environment is played once more, in colour.

    Args:
        seed: of the vector environment's slot.
        start: emulator frames that its reset played: FIRE first where the protocol presses it, the rest no-ops.
    """

    def __init__(self, game: str, protocol: Protocol, seed: int, start: int) -> None:
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        self._ale.setFloat("repeat_action_probability", protocol.repeat_action_probability)
        self._ale.setInt("random_seed", seed)
        self._ale.setInt("frame_skip", 1)
        rom = ale_py.roms.get_rom_path(game)
        assert rom is not None, game
        self._ale.loadROM(rom)
        self._ale.reset_game()
        fire = ale_py.Action.FIRE.value
        presses_fire = protocol.fire_on_reset and fire in action_ids(game, protocol)
        for frame in range(start):
            self._ale.act(fire if presses_fire and frame == 0 else ale_py.Action.NOOP.value)

    def step(self, action_id: int) -> NDArray[np.uint8]:
        """Hold an action (an ALE id) for an agent step; the frames, (4, height, width, 3), fewer at a game's end."""
        frames: list[NDArray[np.uint8]] = []
        while len(frames) < FRAME_SKIP and not self._ale.game_over():
            self._ale.act(action_id)
            frames.append(self._ale.getScreenRGB())
        return np.stack(frames)


def play_in_colour(
    agent: Agent, game: str, protocol: str, epsilon: float, seed: int, precision: Precision = "float32"
) -> Iterator[Moment]:
    """One whole game, step by step: the one that an evaluation of one game in one emulator plays with this seed.

    Raises ValueError where the agent does not play the game, or with other actions than the protocol's.
    """
    check_actions(agent, game, action_ids(game, PROTOCOLS[protocol]))
    agent = agent.frozen(precision)
    own_seed = (*stream(seed, "evaluation"), 0)
    rng = exploration_rng(own_seed)
    env = AtariVector(game, PROTOCOLS[protocol], "play", 1, own_seed, num_threads=1)
    try:
        observations = env.reset()
        colour = ColourEmulator(game, env.protocol, int(env.seeds[0]), int(env.episode_frames[0]))
        score, over = 0.0, False
        while not over:
            outputs = agent.q_values(observations, game, precision)
            action = int(choose(outputs, agent.readouts[game].acting, epsilon, rng)[0])
            step = env.step(np.array([action]))
            score, over = score + float(step.rewards[0]), bool(step.episode_ends[0])
            yield Moment(observations[0], outputs[0], action, colour.step(env.action_ids[action]), score, over)
            observations = step.observations
    finally:
        env.close()
