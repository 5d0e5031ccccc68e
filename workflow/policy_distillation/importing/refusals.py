"""What cannot be imported, by name and with the reason; and reports of what does not fit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..atari import STACK
from .containers import AgentImportError, Tensors
from .declarations import WEIGHT, Declaration

MLP = r"^(mlp_extractor\.policy_net|(q_net\.q_net|quantile_net\.quantile_net)\.\d+|action_net)\."
NET_ARCH = r"(?:^|\.)(q_net\.q_net|quantile_net\.quantile_net)\.([0-9]{1,4})(?<!\.0)\.weight$"
NORMALISER = r"(?i)(obs|input|pixel|image|frame|state)[a-z]*[._]([a-z]+[._])*(mean|std|var|scale|shift)"
LISTED = 12
"""Lines of each kind in a report."""
FOUR_FRAMES = "it remembers what it saw before; agents here see four frames and nothing else"
KNOWN = (
    (r"(^|\.)lstm_(actor|critic)\.", f"sb3-contrib's RecurrentPPO: {FOUR_FRAMES}"),
    (r"(?i)(^|[._])(lstm|gru|rnn)|\.weight_ih_l0$", f"a recurrent network: {FOUR_FRAMES}"),
    (
        r"^mlp_extractor\.policy_net\.",
        "a Stable-Baselines3 policy with net_arch: its extra hidden layers have Tanh, and agents here have ReLU",
    ),
    (
        r"(^|\.)(embed_model|propose_model|fraction_model|cosine_net)\.|^(phi|psi)\.",
        "an IQN or FQF: its values are sampled at random quantile fractions, which no plain network computes",
    ),
    (
        r"(?i)res_?block|residual|resnet|resblock|conv_?seq|(^|\.)Stack_\d|ImpalaEncoder|_stacks_",
        "an IMPALA network: its convolutions have residual connections and pooling",
    ),
    (
        r"(?i)obs_normalizer|obs_rms|running_mean_std|(obs|vec)_?norm",
        "a network behind a normaliser with a mean and variance of each pixel (Sample Factory's, for one), which no "
        "convolution can absorb",
    ),
    (r"\.running_(mean|var)$|(^|\.)BatchNorm", "a network with batch normalisation"),
    (r"(?i)(^|\.)LayerNorm", "a network with layer norms over channels at each position; agents here know other ones"),
    (r"^network_params\.", "a Dopamine PPO, whose names of tensors are not known here; a mapping may describe it"),
)
"""A pattern for names of tensors, and why such a network is refused."""


def refuse_known(tensors: Tensors) -> None:
    """Raise AgentImportError for networks that are recognised and cannot be imported."""
    if not any(tensor.ndim == 4 for tensor in tensors.values()):
        name = next((name for name in sorted(tensors) if re.search(MLP, name)), None)
        if name is not None:
            raise AgentImportError(
                f"{name[:100]}, with no convolution beside it, says that this is a Stable-Baselines3 MlpPolicy, which "
                f"sees no frames: the emulator's memory or other numbers; agents here see {STACK} grey frames"
            )
    for pattern, reason in KNOWN:
        name = next((name for name in sorted(tensors) if re.search(pattern, name)), None)
        if name is not None:
            raise AgentImportError(f"{name[:100]} says that this is {reason}")
    if {"conv1.weight", "fc_h_v.weight"} <= set(tensors):
        raise AgentImportError(
            "conv1.weight and fc_h_v.weight say that this is an older Rainbow of Kaixhin's, whose first convolution is "
            "padded in some releases (1.3) and not in others; the file does not tell"
        )
    for name, tensor in sorted(tensors.items()):
        if tensor.ndim == 3 and name.endswith(".weight"):
            raise AgentImportError(
                f"{name[:100]} {tensor.shape} says that this is a network with layer norms that weigh every position, "
                f"such as CleanRL's PQN; agents here know layer norms with a weight for each channel"
            )
    _refuse_iqn_of_flax(tensors)
    _refuse_net_arch(tensors)


def _refuse_iqn_of_flax(tensors: Tensors) -> None:
    """Its first dense layer reads 64 cosines of a quantile fraction and not the convolutions."""
    first: dict[str, int] = {}
    for name in tensors:
        found = re.fullmatch(r"(.*?)Dense_([0-9]{1,4})\.kernel", name)
        if found and f"{found[1]}Conv_0.kernel" in tensors:
            first[found[1]] = min(first.get(found[1], 9999), int(found[2]))
    for prefix, number in first.items():
        name = f"{prefix}Dense_{number}.kernel"
        if name in tensors and tensors[name].ndim == 2 and len(tensors[name]) == 64:
            raise AgentImportError(
                f"{name[:100]} {tensors[name].shape} says that this is an IQN: its values are sampled at random "
                f"quantile fractions, which no plain network computes"
            )


def _refuse_net_arch(tensors: Tensors) -> None:
    """Value networks of Stable-Baselines3 whose owner gave them more hidden layers."""
    found = sorted(filter(None, (re.search(NET_ARCH, name) for name in tensors)), key=lambda match: int(match[2]))
    if not found:
        return
    prefix, last = found[-1][1], int(found[-1][2])
    reason = f"with net_arch: {last // 2 + 1} hidden layers in all, and agents here have one or two"
    if last == 2:
        trunk = f"{prefix.partition('.')[0]}.features_extractor.linear.0"
        readout = ", readout quantiles in quantile_major order" if prefix.startswith("quantile") else ""
        reason = (
            f"whose net_arch has one more hidden layer, with ReLU unless activation_fn says otherwise: a mapping fits, "
            f"with the hidden layers {trunk} and {prefix}.0 and the output {prefix}.2{readout} (docs/importing.md)"
        )
    raise AgentImportError(f"{prefix}.{last}.weight says that this is a Stable-Baselines3 policy {reason}")


def check_tensors(declaration: Declaration, tensors: Tensors, actions: int) -> None:
    """Raise AgentImportError with a report unless a file holds exactly the declared network, in finite numbers."""
    expected = declaration.shapes(actions)
    found = {name: tensor.shape for name, tensor in tensors.items() if not _passed_over(declaration, name, tensor)}
    missing = [f"{name} {shape}" for name, shape in expected.items() if name not in tensors]
    extra = [f"{name} {shape}" for name, shape in found.items() if name not in expected]
    wrong = [
        f"{name} is {tensors[name].shape}, declared {shape}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    broken = [name for name in expected if name in tensors and not np.isfinite(tensors[name]).all()]
    problems = {"missing": missing, "extra": extra, "of the wrong shape": wrong, "not finite": broken}
    lines = [
        f"  {kind}: {line}"
        for kind, names in problems.items()
        for line in [*sorted(names)[:LISTED], *([f"and {len(names) - LISTED} more"] if len(names) > LISTED else [])]
    ]
    if lines:
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in problems.items() if names)
        reasons = [f"  {reason}" for reason in _reasons(declaration, tensors, expected)]
        raise AgentImportError("\n".join([f"the tensors do not fit the network ({counts}):", *lines, *reasons]))


def _passed_over(declaration: Declaration, name: str, tensor: NDArray[np.float32]) -> bool:
    """What is no part of a network: what a declaration says, and single numbers, such as a count of steps, unless by
    their name inputs are normalised by them."""
    return declaration.ignores(name) or (tensor.ndim == 0 and not re.search(NORMALISER, name))


def _reasons(declaration: Declaration, tensors: Tensors, expected: dict[str, tuple[int, ...]]) -> Sequence[str]:
    """What shapes say of a network, and of the observations that it was made for."""
    flax, weight = declaration.layout == "flax", WEIGHT[declaration.layout]
    reasons: list[str] = []
    rows, width = declaration.rows(tensors), declaration.head.width
    if rows is not None and rows % width:
        reasons.append(f"its output layer has {rows} rows, which is no multiple of {width} {declaration.head.unit}")
    first, last = (f"{declaration.convolutions[number].key}.{weight}" for number in (0, -1))
    if first in tensors and tensors[first].ndim == 4:
        channels = tensors[first].shape[2 if flax else 1]
        if channels != STACK:
            kind = {1: "one frame at a time", 3: "colours"}.get(channels, "another stack of frames")
            reasons.append(f"it sees {channels} channels ({kind}); agents here see {STACK} grey frames")
    dense = next((name for name in expected if len(expected[name]) == 2), None)
    if dense in tensors and tensors[dense].ndim == 2:
        have, need = (shape[0 if flax else 1] for shape in (tensors[dense].shape, expected[dense]))
        if last in tensors and tensors[last].ndim == 4:  # of as many filters as it has
            need = need // declaration.convolutions[-1].filters * tensors[last].shape[3 if flax else 0]
        others = _other_convolutions(declaration, tensors, expected)
        if have != need and others:
            reasons.append(
                f"its convolutions are others than expected ({others}); a mapping that says so fits, if its frames "
                f"were 84x84"
            )
        elif have != need:
            reasons.append(
                f"its first dense layer reads {have} numbers, not {need}: its frames were not 84x84, "
                f"or its convolutions are {'not ' if declaration.padding == 'same' else ''}padded"
            )
    sizes = [
        f"{name.removesuffix('.bias')} {tensors[name].size}, not {shape[0]}"
        for name, shape in expected.items()
        if name.endswith(".bias") and name in tensors and tensors[name].size != shape[0]
    ]
    if sizes and not reasons and expected.keys() <= tensors.keys():
        reasons.append(
            f"it is such a network of other sizes ({'; '.join(sizes[:LISTED])}); a mapping that says so fits "
            f"(docs/importing.md)"
        )
    return reasons


def _other_convolutions(declaration: Declaration, tensors: Tensors, expected: Mapping[str, object]) -> str:
    """How those in the file differ from those declared: one is missing, has another kernel, or is there in addition."""
    flax, weight = declaration.layout == "flax", WEIGHT[declaration.layout]
    told = []
    for layer in declaration.convolutions:
        tensor = tensors.get(f"{layer.key}.{weight}")
        kernel = () if tensor is None or tensor.ndim != 4 else tensor.shape[:2] if flax else tensor.shape[2:]
        if tensor is None:
            told.append(f"no {layer.key}")
        elif kernel != (layer.kernel, layer.kernel):
            told.append(f"{layer.key} {'x'.join(map(str, kernel)) or 'is none'}, not {layer.kernel}x{layer.kernel}")
    told += [
        f"{name.removesuffix(f'.{weight}')} too"
        for name, tensor in tensors.items()
        if tensor.ndim == 4 and name not in expected and not declaration.ignores(name)
    ]
    return "; ".join(told[:LISTED])
