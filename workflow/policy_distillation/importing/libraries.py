"""The libraries that people train Atari agents with: what their tensors are called, and how they drive the emulator.

Read from the libraries' sources: Stable-Baselines3 and sb3-contrib 2.9, CleanRL, Dopamine 4 (JAX), tianshou 0.5 to 2,
pfrl 0.4, Kaixhin's Rainbow and atari-agents. All of them train the network of Mnih et al. 2015, pfrl's A3C that of
2013; who changed it writes a mapping instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..readouts import Support
from .declarations import USUAL_ATOMS, Convolution, Declaration, Dense, Head, Stream


@dataclass(frozen=True)
class Library:
    protocol: str
    """How it drives the emulator: a name in :data:`policy_distillation.protocols.PROTOCOLS`."""
    declarations: tuple[Declaration, ...]
    """Its agents, and the names that its versions gave the same network."""


C51 = Support(-10.0, 10.0, USUAL_ATOMS)
"""The support of Bellemare et al. 2017, which nearly everybody took over."""
POLICY: dict[str, Any] = {"outputs": "logits", "acting": "sample"}
"""Actor-critic agents are sampled on Atari."""
QUANTILES: dict[str, Any] = {"kind": "QR-DQN", "head": Head("quantiles", quantiles_key="tau_hat")}
"""``tau_hat`` is tianshou's; Dopamine's files do not say how many there are."""
NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))


def categorical(kind: str, key: str | None = None, settings: str | None = None) -> dict[str, Any]:
    """A read-out over atoms, whose support the file holds under ``key``. A library that stores it always does, and a
    file without it is of another kind; of one that does not, the usual support is taken, unless ``settings`` in the
    file describe another."""
    support = None if key else C51
    return {"kind": kind, "head": Head("categorical", support=support, support_key=key, support_settings=settings)}


def nature(convolutions: Sequence[str], hidden: str | None, output: str | None, **changes: Any) -> Declaration:
    """The network of Mnih et al. 2015 under the given keys; without ``hidden`` its streams have hidden layers."""
    layers = tuple(Convolution(key, *size) for key, size in zip(convolutions, NATURE, strict=True))
    return Declaration(layers, (Dense(hidden, 512),) if hidden else (), output, **changes)


def duel(convolutions: Sequence[str], value: Sequence[str], advantage: Sequence[str], **changes: Any) -> Declaration:
    """The same with two streams: of each the keys of its hidden layer and its output."""
    streams = [Stream(output, (Dense(hidden, 512),)) for hidden, output in (value, advantage)]
    return nature(convolutions, None, None, value=streams[0], advantage=streams[1], **changes)


def numbered(prefix: str, numbers: str = "024") -> list[str]:
    return [f"{prefix}{number}" for number in numbers]


def _sb3() -> tuple[Declaration, ...]:
    def trunk(prefix: str, output: str, **changes: Any) -> Declaration:
        return nature(numbered(f"{prefix}cnn."), f"{prefix}linear.0", output, **changes)

    critic = ("value_net.", "vf_features_extractor.", "mlp_extractor.value_net.")
    actor: dict[str, Any] = {"kind": "PPO or A2C", **POLICY}
    return (
        trunk("q_net.features_extractor.", "q_net.q_net.0", ignore=("q_net_target.",)),
        # Since version 1.7 the trunk lies in the file three times; unless it is shared, the actor's counts.
        trunk("pi_features_extractor.", "action_net", ignore=(*critic, "features_extractor."), **actor),
        trunk("features_extractor.", "action_net", ignore=critic, **actor),
        trunk(
            "quantile_net.features_extractor.",
            "quantile_net.quantile_net.0",
            kind="QR-DQN",
            head=Head("quantiles", "quantile_major", quantiles_fact="n_quantiles"),
            ignore=("quantile_net_target.",),
        ),
    )


def _flax(prefix: str, **changes: Any) -> Declaration:
    return nature(numbered(f"{prefix}Conv_", "012"), f"{prefix}Dense_0", f"{prefix}Dense_1", layout="flax", **changes)


def _cleanrl() -> tuple[Declaration, ...]:
    trunk = numbered("network.")
    heads = [numbered(f"{head}_head.", "02") for head in ("value", "advantage")]
    actor = nature(
        numbered("1.0.params.Conv_", "012"),
        "1.0.params.Dense_0",
        "1.1.params.Dense_0",
        layout="flax",
        kind="PPO",
        ignore=("0.", "1.2."),
        **POLICY,
    )
    return (
        nature(trunk, "network.7", "network.9"),
        nature(trunk, "network.7", "actor", kind="PPO", ignore=("critic.",), **POLICY),
        nature(trunk, "network.7", "network.9", **categorical("C51", "atoms")),
        duel(trunk, *heads, **categorical("Rainbow", "support")),
        _flax("params."),
        _flax("model_weights.params.", **categorical("C51", settings="args.")),
        actor,
    )


def _dopamine() -> tuple[Declaration, ...]:
    common: dict[str, Any] = {"padding": "same", "ignore": ("target_params.", "optimizer_state.")}
    readouts: list[dict[str, Any]] = [{}, categorical("C51 or Rainbow"), QUANTILES]
    declarations = []
    for prefix in ("online_params.params.", "online_params."):
        for changes in readouts:
            declarations.append(_flax(prefix, **common, **changes))
        for layer in ("NoisyNetwork_", "Dense_"):  # the whole Rainbow, whose streams read one hidden layer
            advantage, value = (Stream(f"{prefix}{layer}{number}") for number in (1, 2))
            convolutions = numbered(f"{prefix}Conv_", "012")
            streams: dict[str, Any] = {"value": value, "advantage": advantage, "layout": "flax"}
            head = categorical("Rainbow")
            declarations.append(nature(convolutions, f"{prefix}{layer}0", None, **streams, **common, **head))
    # Before flax's linen (2021) the layers of a network were numbered together.
    older = [f"online_params.{layer}" for layer in ("Conv_0", "Conv_1", "Conv_2", "Dense_3", "Dense_4")]
    for changes in readouts:
        declarations.append(nature(older[:3], older[3], older[4], layout="flax", **common, **changes))
    return tuple(declarations)


SCALING_WRAPPER = (
    "pixels / 255 follows from the wrapper `module.` around the network, with which tianshou divides them; a "
    "DataParallel network looks the same: of such a one give input_divisor"
)


def _tianshou() -> tuple[Declaration, ...]:
    declarations = []
    for policy in ("policy.", ""):
        for wrapper in ("module.", ""):
            common: dict[str, Any] = {"input_divisor": 255.0 if wrapper else None}
            common["ignore"] = ("model_old.", "model_target.", "policy.model_old.", "tau_hat", "critic.")
            common["ignore"] += ("_actor_critic.", "policy.critic.")
            common["notes"] = (SCALING_WRAPPER,) if wrapper else ()
            model, support = f"{policy}model.{wrapper}", f"{policy}support"
            trunk = numbered(f"{model}net.0.")
            readouts: list[dict[str, Any]] = [{}, categorical("C51", support), QUANTILES]
            for changes in readouts:
                declarations.append(nature(trunk, f"{model}net.1", f"{model}net.3", **common, **changes))
            value, advantage = (numbered(f"{model}{name}.", "02") for name in ("V", "Q"))
            head = categorical("Rainbow", support)
            declarations.append(duel(numbered(f"{model}net."), value, advantage, **common, **head))
            actor = f"{policy}actor.preprocess.{wrapper}net."
            last = f"{policy}actor.last.model.0"
            declarations.append(nature(numbered(f"{actor}0."), f"{actor}1", last, kind="PPO", **common, **POLICY))
    return tuple(declarations)


def _pfrl() -> tuple[Declaration, ...]:
    trunk, layers = numbered("0.layers.", "012"), numbered("conv_layers.", "012")
    noise = "pfrl keeps the noise of its noisy layers when it plays; here their means play: a close relative"
    mnih2013 = (Convolution("0", 16, 8, 4), Convolution("2", 32, 4, 2))
    logits: dict[str, Any] = {"ignore": ("*.child_modules.1.*",), **POLICY}
    rainbow = Declaration(
        tuple(Convolution(key, *size) for key, size in zip(layers, NATURE, strict=True)),
        (Dense("main_stream", 1024),),
        value=Stream("v_stream", reads=(512, 1024)),
        advantage=Stream("a_stream", reads=(0, 512)),
        notes=(noise,),
        **categorical("Rainbow"),
    )
    streams = [(f"{name}_stream.hidden_layers.0", f"{name}_stream.output") for name in "va"]
    return (
        nature(trunk, "0.output", "1"),
        nature(trunk, "0.output", "1.model.0.output", **categorical("C51", "1.z_values")),
        rainbow,
        duel(layers, *streams, kind="duelling DQN"),
        Declaration(mnih2013, (Dense("5", 256),), "7.child_modules.0.0", kind="A3C", **logits),
        nature(numbered(""), "7", "9.child_modules.0.0", kind="PPO", **logits),
    )


def _kaixhin() -> tuple[Declaration, ...]:
    streams = [(f"fc_h_{name}", f"fc_z_{name}") for name in "va"]
    return (duel(numbered("convs."), *streams, **categorical("Rainbow")),)


def _atari_agents() -> tuple[Declaration, ...]:
    network = "estimator_state._AtariNet__"
    layers = (numbered(f"{network}features."), f"{network}head.0", f"{network}head.2")
    return (
        nature(*layers, kind="DQN or M-DQN", ignore=("*",)),
        nature(*layers, ignore=("*",), **categorical("C51", f"{network}support")),
    )


LIBRARIES = {
    "sb3": Library("sb3", _sb3()),
    "cleanrl": Library("cleanrl", _cleanrl()),
    "dopamine": Library("dopamine", _dopamine()),
    "tianshou": Library("cleanrl", _tianshou()),
    "pfrl": Library("pfrl", _pfrl()),
    "kaixhin": Library("paper2015", _kaixhin()),
    "atari_agents": Library("paper2015", _atari_agents()),
}
