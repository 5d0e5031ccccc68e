"""How the emulator is driven: the paper's way, and those of the libraries that agents come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ProtocolName = Literal["paper2015", "machado2018", "sb3", "cleanrl", "pfrl", "dopamine"]


@dataclass(frozen=True)
class Protocol:
    """How the emulator is driven. Written into every artefact it shaped."""

    name: str
    repeat_action_probability: float
    """Sticky actions: chance that the emulator repeats the previous action for one more frame."""
    noop_max: int
    """A game starts with 0 to this many no-ops, drawn uniformly."""
    fire_on_reset: bool
    """Press FIRE once after a reset where the game has that action."""
    full_action_space: bool
    """All 18 actions instead of the game's minimal set."""
    max_episode_frames: int
    """A game is truncated after this many emulator frames."""
    life_loss_terminates: bool
    """While a teacher trains, the loss of a life ends the return (the game itself goes on)."""
    clip_rewards: bool
    """While a teacher trains, rewards are clipped to [-1, 1]."""
    repeat_first_frame: bool = False
    """What stands in an observation for frames from before the game began: its first frame, or black."""


PROTOCOLS = {
    "paper2015": Protocol(
        name="paper2015",
        repeat_action_probability=0.0,
        noop_max=30,
        fire_on_reset=False,
        full_action_space=False,
        max_episode_frames=108_000,
        life_loss_terminates=True,
        clip_rewards=True,
    ),
    # Machado et al. 2018, "Revisiting the Arcade Learning Environment", table 5.
    "machado2018": Protocol(
        name="machado2018",
        repeat_action_probability=0.25,
        noop_max=0,
        fire_on_reset=False,
        full_action_space=True,
        max_episode_frames=18_000 * 5,
        life_loss_terminates=False,
        clip_rewards=True,
    ),
    # How other libraries drive the emulator: what this one can imitate. docs/importing.md says what it cannot.
    "sb3": Protocol(
        name="sb3",
        repeat_action_probability=0.0,
        noop_max=30,
        fire_on_reset=True,
        full_action_space=False,
        max_episode_frames=108_000,
        life_loss_terminates=True,
        clip_rewards=True,
    ),
    "cleanrl": Protocol(  # tianshou too
        name="cleanrl",
        repeat_action_probability=0.0,
        noop_max=30,
        fire_on_reset=True,
        full_action_space=False,
        max_episode_frames=108_000,
        life_loss_terminates=True,
        clip_rewards=True,
        repeat_first_frame=True,
    ),
    "pfrl": Protocol(
        name="pfrl",
        repeat_action_probability=0.0,
        noop_max=30,
        fire_on_reset=False,
        full_action_space=False,
        max_episode_frames=108_000,
        life_loss_terminates=True,
        clip_rewards=True,
        repeat_first_frame=True,
    ),
    "dopamine": Protocol(
        name="dopamine",
        repeat_action_probability=0.25,
        noop_max=0,
        fire_on_reset=False,
        full_action_space=False,
        max_episode_frames=108_000,
        life_loss_terminates=False,
        clip_rewards=True,
    ),
}
