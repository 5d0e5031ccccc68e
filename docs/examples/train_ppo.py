"""Train a PPO with Stable-Baselines3 in this project's emulators, and save the zip that `import` reads.

    python docs/examples/train_ppo.py pong model.zip --steps 10000000

Stable-Baselines3's hyper-parameters for Atari. Observations, rewards and terminations are those of the protocol `sb3`;
one process steps all emulators. Needs stable_baselines3 beside this package.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from gymnasium import spaces
from policy_distillation.atari import AtariVector
from policy_distillation.protocols import PROTOCOLS
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env.base_vec_env import VecEnv


class Emulators(VecEnv):
    """The vector environment under Stable-Baselines3's interface."""

    def __init__(self, game: str, num_envs: int, seed: int) -> None:
        self._env, self.render_mode = AtariVector(game, PROTOCOLS["sb3"], "train", num_envs, seed), None
        frames = spaces.Box(0, 255, (4, 84, 84), np.uint8)
        super().__init__(num_envs, frames, spaces.Discrete(len(self._env.action_ids)))

    def reset(self) -> Any:
        return self._env.reset()

    def step_async(self, actions: Any) -> None:
        self._env.send(actions)

    def step_wait(self) -> Any:
        step = self._env.receive()
        ends = step.terminations | step.truncations | step.episode_ends
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for slot in np.flatnonzero(ends):  # the emulator has gone on; what it showed last is not asked for
            infos[slot]["terminal_observation"] = step.observations[slot]
        for episode in step.episodes:
            infos[episode.slot]["episode"] = {"r": episode.episode_return, "l": episode.length, "t": 0.0}
        return step.observations, step.rewards, ends, infos

    def close(self) -> None:
        self._env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * self.num_envs

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError


class Trunk(NatureCNN):
    """The usual convolutions, computed in bfloat16."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(observations.contiguous(memory_format=torch.channels_last)).float()


class Falling:
    """A schedule from ``value`` to a tenth of it: by steps, or by time where that runs out first."""

    def __init__(self, value: float, minutes: float) -> None:
        self.value, self.begun, self.seconds = value, time.time(), 60 * minutes

    def __call__(self, remaining: float) -> float:
        return self.value * (0.1 + 0.9 * max(0.0, min(remaining, 1 - (time.time() - self.begun) / self.seconds)))


class Deadline(BaseCallback):
    """Ends training after so many minutes."""

    def __init__(self, minutes: float) -> None:
        super().__init__()
        self.end = time.time() + 60 * minutes

    def _on_step(self) -> bool:
        return time.time() < self.end


def main(
    game: tyro.conf.Positional[str],
    output: tyro.conf.Positional[Path],
    steps: int = 10_000_000,
    minutes: float = float("inf"),
    learning_rate: float = 2.5e-4,
    envs: int = 8,
    seed: int = 1,
    keep_every: int = 100_000,
) -> None:
    """Train a PPO.

    Args:
        game: as ale-py spells it.
        output: the zip.
        steps: of all emulators together.
        minutes: end after so many, whatever the steps.
        learning_rate: at the beginning; it falls to a tenth.
        envs: emulators.
        seed: of everything.
        keep_every: steps between checkpoints.
    """
    model = PPO(
        "CnnPolicy",
        Emulators(game, envs, seed),
        n_steps=128,
        n_epochs=4,
        batch_size=256,
        learning_rate=Falling(learning_rate, minutes),
        clip_range=Falling(0.1, minutes),
        vf_coef=0.5,
        ent_coef=0.01,
        seed=seed,
        verbose=1,
        # Without `net_arch` Stable-Baselines3 adds two layers with Tanh to any trunk that is not its own.
        policy_kwargs={"net_arch": [], "features_extractor_class": Trunk},
    )
    model.policy.to(memory_format=torch.channels_last)
    keep = CheckpointCallback(max(1, keep_every // envs), str(output.with_suffix(".checkpoints")))
    model.learn(steps, callback=[keep, Deadline(minutes)], log_interval=10)
    model.save(output)


if __name__ == "__main__":
    tyro.cli(main)
