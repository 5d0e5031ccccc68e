"""Atari games: the vector environment and its episode accounting.

One agent step, drawn in emulator frames (frame_skip = 4)::

    action a_t chosen ──┬──────┬──────┬──────┐
    emulator frames     f1     f2     f3     f4
    observation         .      .      └ max ─┘ -> grey 84x84 -> newest of the last four -> o_{t+1}

The C++ vector environment does all of it. It resets a finished game within the same step, so every step of every slot
is a real transition: the observation returned beside ``episode_ends`` is the first one of the *next* game.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .games import known_games
from .protocols import Protocol

STACK = 4
"""Frames in an observation, oldest first."""
SIDE = 84
"""Height and width of a frame in pixels."""
FRAME_SKIP = 4
"""Emulator frames an agent step lasts."""

Purpose = Literal["train", "play"]


@dataclass(frozen=True)
class Episode:
    """A game played to its true end, scored without clipping."""

    slot: int
    """Which of the vector environment's emulators played it."""
    number: int
    """How many games that slot had finished before."""
    seed: int
    """The slot's emulator seed; (seed, number) and the actions determine the game."""
    episode_return: float
    length: int
    """Agent steps."""
    truncated: bool
    """Ended by the frame cap rather than by the game."""


@dataclass(frozen=True)
class Step:
    """What one action per slot led to. Arrays have one entry per slot."""

    observations: NDArray[np.uint8]
    """(slots, 4, 84, 84): what the agent sees next; after ``episode_ends`` the first view of a new game."""
    rewards: NDArray[np.float32]
    """Raw score gained; clipped to [-1, 1] where the purpose is to train and the protocol clips."""
    terminations: NDArray[np.bool_]
    """Nothing more to earn: the game is over or, in training, a life was lost."""
    truncations: NDArray[np.bool_]
    """The frame cap cut the game: the return goes on beyond what was seen."""
    episode_ends: NDArray[np.bool_]
    """The game is really over, or truncated."""
    episodes: list[Episode]
    """The games that ended with this step."""


def action_ids(game: str, protocol: Protocol) -> list[int]:
    """The ALE ids of the actions that an agent chooses from, in order. Raises ValueError for a game that is none."""
    import ale_py

    if game not in known_games():
        raise ValueError(f"{game}: no game of ale-py's that one player plays")
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    rom = ale_py.roms.get_rom_path(game)
    assert rom is not None
    ale.loadROM(rom)
    actions = ale.getLegalActionSet() if protocol.full_action_space else ale.getMinimalActionSet()
    return [int(action.value) for action in actions]


def slot_seeds(seed: int | Sequence[int], num_envs: int) -> NDArray[np.int64]:
    """Emulator seeds, one per slot, from any seed or tuple of seeds (run, part, ...); two may be alike by chance."""
    return np.random.SeedSequence(seed).generate_state(num_envs).astype(np.int64) & 0x7FFFFFFF


class AtariVector:
    """``num_envs`` emulators of one game, stepped together, with honest episode accounting.

    Args:
        game: a name from :func:`~policy_distillation.games.known_games`, such as ``breakout``.
        protocol: how the emulator is driven.
        purpose: ``train`` applies the protocol's life-loss terminations and reward clipping, ``play`` never does.
        num_envs: emulators, called slots.
        seed: equal seeds and equal actions give equal games.
        num_threads: C++ threads; by default as many as torch has, not ale-py's own choice of a node's every core.
    """

    def __init__(
        self,
        game: str,
        protocol: Protocol,
        purpose: Purpose,
        num_envs: int,
        seed: int | Sequence[int],
        num_threads: int | None = None,
    ) -> None:
        import torch
        from ale_py.vector_env import AtariVectorEnv  # a second to import; sources and listings need the names alone
        from gymnasium.vector import AutoresetMode

        self.game, self.protocol, self.purpose, self.num_envs = game, protocol, purpose, num_envs
        self.seeds = slot_seeds(seed, num_envs)
        # Every flag is explicit: ale-py's defaults clip rewards and press FIRE.
        self._env = AtariVectorEnv(
            game,
            num_envs,
            num_threads=num_threads or torch.get_num_threads(),
            max_num_frames_per_episode=protocol.max_episode_frames,
            repeat_action_probability=protocol.repeat_action_probability,
            full_action_space=protocol.full_action_space,
            continuous=False,
            autoreset_mode=AutoresetMode.SAME_STEP,
            img_height=SIDE,
            img_width=SIDE,
            grayscale=True,
            stack_num=STACK,
            frameskip=FRAME_SKIP,
            maxpool=True,
            # ale-py draws from 0 .. noop_max - 1; the paper says "up to 30".
            noop_max=protocol.noop_max + 1,
            # `episodic_life` would reset the whole game at each life; `life_loss_info` reports the loss and plays on.
            episodic_life=False,
            life_loss_info=True,
            reward_clipping=False,
            use_fire_reset=protocol.fire_on_reset,
        )
        self.action_ids: list[int] = [int(action.value) for action in self._env.ale.get_action_set()]

    def reset(self) -> NDArray[np.uint8]:
        """Start a new game in every slot, from the slots' seeds; returns the first observations (slots, 4, 84, 84)."""
        observations: NDArray[np.uint8]
        observations, info = self._env.reset(seed=self.seeds)
        self.episode_frames = info["episode_frame_number"].copy()  # that each slot's game has lasted
        self._lives = info["lives"].copy()
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._finished = np.zeros(self.num_envs, np.int64)
        self._fill_up(observations)
        return observations

    def begin(self, slots: NDArray[np.bool_], seeds: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Start new games in some slots, from seeds of their own; the other slots' games stay as they are.

        Such a game, and all that follows it in its slot, is determined by its seed and the actions.

        Args:
            slots: (slots,), which ones.
            seeds: one for each of those.

        Returns:
            The current observations of all slots, (slots, 4, 84, 84).
        """
        observations: NDArray[np.uint8]
        observations, info = self._env.reset(seed=seeds, options={"reset_mask": slots})
        self.seeds[slots] = seeds
        self.episode_frames[slots], self._lives[slots] = info["episode_frame_number"][slots], info["lives"][slots]
        self._returns[slots] = self._lengths[slots] = self._finished[slots] = 0
        self._fill_up(observations)
        return observations

    def step(self, actions: NDArray[np.int64]) -> Step:
        """Play one agent step in every slot. ``actions``: (slots,), indices into ``action_ids``."""
        self.send(actions)
        return self.receive()

    def send(self, actions: NDArray[np.int64]) -> None:
        """Begin a step; the emulators play in threads of their own until :meth:`receive` asks for the outcome."""
        self._env.send(actions)

    def receive(self) -> Step:
        """The outcome of the step that :meth:`send` began."""
        observations, rewards, terminations, truncations, info = self._env.recv()
        frames = info["episode_frame_number"]
        # A life lost and a game over both report `terminated`, and games without lives always report 0 of them. What
        # tells them apart is the emulator's own frame count, which starts again only with a new game.
        episode_ends = truncations | (frames <= self.episode_frames)
        # ale-py does not report a truncation that falls on the loss of a life.
        at_cap = (self._lengths + 1) * FRAME_SKIP >= self.protocol.max_episode_frames
        truncations = truncations | (episode_ends & at_cap & (self._lives > 1))
        self.episode_frames, self._lives = frames.copy(), info["lives"].copy()
        self._returns += rewards
        self._lengths += 1
        episodes = []
        for slot in np.flatnonzero(episode_ends):
            episodes.append(
                Episode(
                    slot=int(slot),
                    number=int(self._finished[slot]),
                    seed=int(self.seeds[slot]),
                    episode_return=float(self._returns[slot]),
                    length=int(self._lengths[slot]),
                    truncated=bool(truncations[slot]),
                )
            )
            self._returns[slot] = self._lengths[slot] = 0
            self._finished[slot] += 1
        self._fill_up(observations)
        training = self.purpose == "train"
        if not (training and self.protocol.life_loss_terminates):
            terminations = terminations & episode_ends
        rewards = rewards.astype(np.float32)
        if training and self.protocol.clip_rewards:
            rewards = np.clip(rewards, -1.0, 1.0)
        return Step(observations, rewards, terminations & ~truncations, truncations, episode_ends, episodes)

    def _fill_up(self, observations: NDArray[np.uint8]) -> None:
        """Where the protocol says so, let a game's first frame stand for those before it."""
        if self.protocol.repeat_first_frame:
            for slot in np.flatnonzero(self._lengths < STACK - 1):
                first = STACK - 1 - self._lengths[slot]
                observations[slot, :first] = observations[slot, first]

    def close(self) -> None:
        self._env.close()
