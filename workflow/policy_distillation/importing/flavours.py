"""The score of one network under every library's pre-processing: the table in docs/importing.md.

    python -m policy_distillation.importing.flavours AGENT [--episodes 64]

Rows called by a protocol's name are played in this project's emulator. Rows called *wrappers* are played in emulators
that do what the library's Python wrappers do, including what the vector environment cannot: colours are pooled before
they turn grey, or shrunk before that, and a lost life ends an episode: one no-op, FIRE, and the stack starts anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from ..acting import EPSILON, choose
from ..atari import FRAME_SKIP, SIDE, STACK, action_ids, slot_seeds
from ..checkpoints import load_agent
from ..evaluate import Evaluation, play_episodes
from ..exporting import need
from ..networks import Agent
from ..protocols import PROTOCOLS, Protocol
from ..stopping import told_in_a_line
from .containers import AgentImportError

NOOP, FIRE, RIGHT = 0, 1, 2
"""Positions in the minimal action set of a game that has FIRE, as the wrappers assume them."""


@dataclass(frozen=True)
class Wrappers:
    """What a library's Python wrappers do beyond its protocol."""

    protocol: str
    pixels: Literal["grey", "luma", "resized"]
    """``grey``: the emulator's own grey, pooled, shrunk (ours, and Dopamine's). ``luma``: colours pooled, made grey by
    OpenCV, shrunk. ``resized``: colours pooled, shrunk, made grey by OpenCV."""
    life_is_episode: bool
    """A lost life: one no-op, FIRE where the protocol has it at reset, and the stack starts anew."""


WRAPPERS = {
    "sb3": Wrappers("sb3", "luma", life_is_episode=True),
    "cleanrl": Wrappers("cleanrl", "resized", life_is_episode=True),
    "tianshou": Wrappers("cleanrl", "luma", life_is_episode=False),
    "pfrl": Wrappers("pfrl", "luma", life_is_episode=False),
}


class WrappedEmulator:
    """One emulator that is driven as ``wrappers`` say. Observations: (4, 84, 84) uint8."""

    def __init__(self, game: str, wrappers: Wrappers, seed: int) -> None:
        import ale_py

        self._wrappers, self._rng = wrappers, np.random.default_rng(seed)
        self._protocol: Protocol = PROTOCOLS[wrappers.protocol]
        self._ale = ale_py.ALEInterface()
        self._ale.setInt("random_seed", seed)
        self._ale.setFloat("repeat_action_probability", self._protocol.repeat_action_probability)
        self._ale.setInt("max_num_frames_per_episode", self._protocol.max_episode_frames)
        rom = ale_py.roms.get_rom_path(game)
        assert rom is not None, game
        self._ale.loadROM(rom)
        self._actions = self._ale.getMinimalActionSet()
        self._stack = np.zeros((STACK, SIDE, SIDE), np.uint8)
        self._fires = self._protocol.fire_on_reset and FIRE in action_ids(game, self._protocol)

    def reset(self) -> NDArray[np.uint8]:
        self._ale.reset_game()
        for _ in range(int(self._rng.integers(1, self._protocol.noop_max + 1)) if self._protocol.noop_max else 0):
            self._ale.act(self._actions[NOOP])
        self._frames = [self._screen(), self._screen()]
        if self._fires:
            self._act(FIRE)
            self._act(RIGHT)
        return self._restart_stack()

    def step(self, action: int) -> tuple[NDArray[np.uint8], float, bool]:
        """What is seen next, the score gained, and whether the game is over."""
        lives = self._ale.lives()
        reward = self._act(action)
        if self._wrappers.life_is_episode and 0 < self._ale.lives() < lives:
            for forced in (NOOP, FIRE, RIGHT) if self._fires else (NOOP,):
                reward += self._act(forced)
            return self._restart_stack(), reward, bool(self._ale.game_over())
        self._stack = np.concatenate([self._stack[1:], self._observe()[None]])
        return self._stack, reward, bool(self._ale.game_over())

    def _act(self, action: int) -> float:
        reward = 0.0
        for frame in range(FRAME_SKIP):
            reward += self._ale.act(self._actions[action])
            if frame >= FRAME_SKIP - 2:
                self._frames[frame - FRAME_SKIP + 2] = self._screen()
            if self._ale.game_over():
                break
        return reward

    def _restart_stack(self) -> NDArray[np.uint8]:
        self._stack = np.zeros((STACK, SIDE, SIDE), np.uint8)
        self._stack[0 if self._protocol.repeat_first_frame else -1 :] = self._observe()
        return self._stack

    def _screen(self) -> NDArray[np.uint8]:
        ale = self._ale
        screen: NDArray[np.uint8] = ale.getScreenGrayscale() if self._wrappers.pixels == "grey" else ale.getScreenRGB()
        return screen

    def _observe(self) -> NDArray[np.uint8]:
        import cv2

        screen: NDArray[Any] = np.maximum(*self._frames)
        if self._wrappers.pixels == "luma":
            screen = cv2.cvtColor(screen, cv2.COLOR_RGB2GRAY)
        screen = cv2.resize(screen, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        if self._wrappers.pixels == "resized":
            screen = cv2.cvtColor(screen, cv2.COLOR_RGB2GRAY)
        return screen.astype(np.uint8, copy=False)


def play_wrapped(agent: Agent, game: str, wrappers: Wrappers, evaluation: Evaluation, seed: int) -> list[float]:
    """Returns of ``evaluation.episodes`` games, as many from each emulator."""
    seeds = slot_seeds((seed, 1), evaluation.envs)
    emulators = [WrappedEmulator(game, wrappers, int(slot_seed)) for slot_seed in seeds]
    rng = np.random.default_rng((seed, 2))
    observations = np.stack([emulator.reset() for emulator in emulators])
    earned = np.zeros(len(emulators))
    done: list[list[float]] = [[] for _ in emulators]
    while min(map(len, done)) < evaluation.episodes // evaluation.envs:
        outputs = agent.q_values(observations, game)
        actions = choose(outputs, agent.readouts[game].acting, evaluation.epsilon, rng)
        for slot, emulator in enumerate(emulators):
            observations[slot], reward, over = emulator.step(int(actions[slot]))
            earned[slot] += reward
            if over:
                done[slot].append(float(earned[slot]))
                earned[slot] = 0.0
                observations[slot] = emulator.reset()
    return [score for scores in done for score in scores[: evaluation.episodes // evaluation.envs]]


def main(agent: Annotated[Path, tyro.conf.Positional], episodes: int = 64, envs: int = 16, seed: int = 0) -> None:
    """Print a table in Markdown: mean return and its standard error, epsilon 0.05.

    Args:
        agent: the file of an agent of one game, with the minimal action set.
        episodes: games for each row, a multiple of envs.
        envs: emulators in lockstep.
        seed: of emulators and exploration.
    """
    need("the wrappers", "gymnasium", "cv2")
    player, _ = load_agent(agent)
    if len(player.actions) != 1:
        raise AgentImportError(f"{agent}: plays {', '.join(player.actions)}; allowed: an agent of one game")
    (game,) = player.actions
    evaluation = Evaluation(episodes, envs, EPSILON)
    print(f"| driven as | {game} |\n|---|---|", flush=True)
    for name, protocol in PROTOCOLS.items():
        if not protocol.full_action_space:
            played = play_episodes(player, game, name, evaluation, seed)
            print(_row(f"`{name}`", [episode.episode_return for episode in played]), flush=True)
    for name, wrappers in WRAPPERS.items():
        print(_row(f"{name}'s wrappers", play_wrapped(player, game, wrappers, evaluation, seed)), flush=True)


def _row(name: str, returns: list[float]) -> str:
    error = np.std(returns, ddof=1) / len(returns) ** 0.5
    return f"| {name} | {np.mean(returns):.2f} ± {error:.2f} |"


if __name__ == "__main__":
    with told_in_a_line():
        tyro.cli(main)
