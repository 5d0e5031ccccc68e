"""Files that other libraries load as their own: CleanRL's `dqn_atari` and Stable-Baselines3's `DQN`.

Both build one network alone, that of Mnih et al. 2015 on pixels / 255: the size ``dqn`` without layer norm. What its
tensors are called is what :mod:`policy_distillation.importing.libraries` reads, so importing gives the agent back.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import gymnasium
import numpy as np
import torch
from torch import Tensor

from ..acting import EPSILON
from ..atari import SIDE, STACK
from ..files import atomic_path
from ..importing.declarations import Declaration
from ..importing.libraries import LIBRARIES
from ..networks import Agent, Network
from ..readouts import Readout
from . import ExportError

NATURE = Network((32, 64, 64), 512)


def export_cleanrl(agent: Agent, path: Path) -> None:
    """Write an agent of one game as a ``.cleanrl_model``. Raises ExportError unless it has CleanRL's network."""
    tensors = named_tensors(agent, "cleanrl")
    with atomic_path(path) as temporary:
        torch.save(tensors, temporary)


def export_sb3(agent: Agent, path: Path) -> None:
    """Write an agent of one game as a zip that ``DQN.load`` reads; ``path`` ends in .zip. Raises as the former does.

    It acts as it does here, with a random action now and then unless asked for ``deterministic=True``. Its replay
    buffer has room for one transition: who trains it further gives ``DQN.load`` another ``buffer_size``.
    """
    from stable_baselines3 import DQN

    tensors = named_tensors(agent, "sb3")
    actions = len(next(iter(agent.actions.values())))
    model = DQN("CnnPolicy", _Spaces(actions), buffer_size=1, exploration_final_eps=EPSILON, device="cpu")
    targets = {name.replace("q_net.", "q_net_target.", 1): tensor for name, tensor in tensors.items()}
    model.policy.load_state_dict(tensors | targets)
    model.exploration_rate = EPSILON
    with atomic_path(path) as temporary:
        model.save(temporary)


def named_tensors(agent: Agent, library: str) -> dict[str, Tensor]:
    """An agent's parameters under the names that a library gives them. Raises ExportError unless it has its network."""
    (game,) = agent.actions
    readout = agent.readouts[game]
    own, wanted = asdict(agent.network) | asdict(readout), asdict(NATURE) | asdict(Readout(outputs=readout.outputs))
    if other := [f"{name} {value}" for name, value in own.items() if value != wanted[name]]:
        raise ExportError(
            f"{library} has one network, dqn (32, 64 and 64 filters, 512 units, no layer norm), and acts greedily; "
            f"this agent has {', '.join(other)}"
        )
    declaration: Declaration = LIBRARIES[library].declarations[0]
    assert declaration.output is not None
    ours = [*(f"conv{layer}" for layer in (1, 2, 3)), "hidden", f"controllers.{game}"]
    theirs = [layer.key for layer in declaration.convolutions]
    theirs += [*(layer.key for layer in declaration.hidden), declaration.output]
    return {
        f"{their}.{part}": agent.get_parameter(f"{our}.{part}").detach().cpu().contiguous()
        for our, their in zip(ours, theirs, strict=True)
        for part in ("weight", "bias")
    }


class _Spaces(gymnasium.Env[np.ndarray, np.int64]):
    """What Stable-Baselines3 wants to see in order to build its network; nobody plays it."""

    def __init__(self, actions: int) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 255, (STACK, SIDE, SIDE), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(actions)
