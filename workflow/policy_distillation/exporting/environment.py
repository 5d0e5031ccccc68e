"""A protocol in Gymnasium's terms: the environment and wrappers that show an agent what it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium

from ..atari import FRAME_SKIP, SIDE, STACK
from ..games import camel_case
from ..protocols import Protocol
from . import ExportError


def read_protocol(content: Any, path: Path) -> Protocol:
    """A protocol as a file's metadata hold it. Raises ExportError."""
    try:
        return Protocol(**content)
    except TypeError:
        raise ExportError(f"{path}: its metadata do not say under which protocol it was made") from None


def environment_id(game: str) -> str:
    """``space_invaders`` is ``ALE/SpaceInvaders-v5``."""
    return f"ALE/{camel_case(game)}-v5"


def leaderboard_id(game: str, protocol: Protocol) -> str:
    """The name under which scores are compared: ``PongNoFrameskip-v4`` was never sticky, ``ALE/Pong-v5`` is."""
    return environment_id(game) if protocol.repeat_action_probability else f"{camel_case(game)}NoFrameskip-v4"


def make_environment(game: str, protocol: Protocol) -> gymnasium.Env[Any, Any]:
    """The environment; a protocol that presses FIRE after a reset, which Gymnasium has no wrapper for, is refused."""
    import ale_py  # registers its games
    from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

    if protocol.fire_on_reset:
        raise ValueError(f"{protocol.name} presses FIRE after a reset; Gymnasium has no wrapper that does")
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # else it introduces itself
    env = gymnasium.make(
        environment_id(game),
        frameskip=1,
        repeat_action_probability=protocol.repeat_action_probability,
        full_action_space=protocol.full_action_space,
        max_num_frames_per_episode=protocol.max_episode_frames,
    )
    env = AtariPreprocessing(
        env, noop_max=protocol.noop_max, frame_skip=FRAME_SKIP, screen_size=SIDE, terminal_on_life_loss=False
    )
    return FrameStackObservation(env, STACK, padding_type="reset" if protocol.repeat_first_frame else "zero")


def environment_spec(game: str, protocol: Protocol) -> str | None:
    """Its specification as Gymnasium writes it, wrappers included, or None where there is no such environment."""
    if protocol.fire_on_reset:
        return None
    env = make_environment(game, protocol)
    try:
        return None if env.spec is None else env.spec.to_json()
    finally:
        env.close()
