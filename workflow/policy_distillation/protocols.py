"""How the emulator is driven: the paper's way, and those of the libraries that agents come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
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


PAPER2015 = Protocol(
    name="paper2015",
    repeat_action_probability=0.0,
    noop_max=30,
    fire_on_reset=False,
    full_action_space=False,
    max_episode_frames=108_000,
    life_loss_terminates=True,
    clip_rewards=True,
)
# Sticky actions, all actions, no signal of a lost life: Machado et al. 2018, "Revisiting the Arcade Learning
# Environment". How long an episode may last is ours: 25 minutes.
MACHADO2018 = replace(
    PAPER2015,
    name="machado2018",
    repeat_action_probability=0.25,
    noop_max=0,
    full_action_space=True,
    max_episode_frames=90_000,
    life_loss_terminates=False,
)
# How other libraries drive the emulator: what this one can imitate. docs/importing.md says what it cannot.
SB3 = replace(PAPER2015, name="sb3", fire_on_reset=True)
CLEANRL = replace(SB3, name="cleanrl", repeat_first_frame=True)  # tianshou too
PFRL = replace(PAPER2015, name="pfrl", repeat_first_frame=True)
DOPAMINE = replace(PAPER2015, name="dopamine", repeat_action_probability=0.25, noop_max=0, life_loss_terminates=False)

PROTOCOLS = {protocol.name: protocol for protocol in (PAPER2015, MACHADO2018, SB3, CLEANRL, PFRL, DOPAMINE)}
