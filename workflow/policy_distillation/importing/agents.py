"""From a source in the configuration to an agent of this project and the record of where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..atari import PROTOCOLS, Protocol, action_ids
from ..files import file_digest
from ..networks import Agent
from ..sources import hub_file
from .containers import AgentImportError, read_tensors
from .layouts import build_agent, check_tensors, read_declaration
from .libraries import LIBRARIES, recognise


def download(source: Mapping[str, Any]) -> Path:
    """The file of a source on the model hub, at its pinned revision, from the cache where it is there already.

    ``HF_HUB_OFFLINE=1`` allows the cache alone; ``HF_HOME`` says where that is.
    """
    from huggingface_hub import hf_hub_download

    name = hub_file(source)
    try:
        return Path(hf_hub_download(source["hub"], name, revision=source["revision"]))
    except Exception as error:  # the hub's client raises its own errors, its HTTP library's and the system's
        line = " ".join(str(error).split())[:300]
        raise AgentImportError(f"{source['hub']}: cannot download {name} ({type(error).__name__}: {line})") from None


def import_agent(source: Mapping[str, Any], game: str, protocol: str | None = None) -> tuple[Agent, dict[str, Any]]:
    """Read an agent that another library saved.

    Args:
        source: an entry of ``teacher.source`` in the configuration; without ``from`` the library is guessed.
        game: a name that ale-py knows.
        protocol: how the agent will be driven; by default as its library does, for a mapping ``paper2015``.

    Returns:
        The agent and metadata for :func:`policy_distillation.checkpoints.save_agent`.

    Raises:
        AgentImportError: the file is no such agent, or its actions are not the protocol's.
    """
    path = download(source) if "hub" in source else Path(source["path"])
    content = read_tensors(path)
    ids: list[int] | None = source.get("actions")
    library = source.get("from")
    try:
        if source.get("mapping"):
            library = "mapping"
            declaration, declared_ids = read_declaration(Path(source["mapping"]))
            ids = ids or declared_ids
        else:
            library, declaration = recognise(content, library)
        if "input_divisor" in source:
            declaration = replace(declaration, input_divisor=float(source["input_divisor"]))
        trained_under = LIBRARIES[library].protocol if library in LIBRARIES else None
        name = protocol or trained_under or "paper2015"
        emulator_ids = action_ids(game, PROTOCOLS[name])
        outputs = declaration.outputs(content.tensors)
        check_tensors(declaration, content.tensors, len(ids or emulator_ids) if outputs is None or ids else outputs)
        order = _order(ids, emulator_ids, outputs, game, name)
        agent = build_agent(declaration, content.tensors, game, emulator_ids, order)
    except AgentImportError as error:
        raise AgentImportError(f"{path}: {error}") from None
    imported = {
        **{key: value for key, value in source.items() if key not in ("from", "actions")},
        "from": library,
        "container": content.container,
        "digest": file_digest(path / "model.pt" if path.is_dir() else path),
        "facts": content.facts,
        "input_divisor": declaration.input_divisor,
        "layout": declaration.layout,
        "outputs": ids or emulator_ids,
        "trained_under": trained_under,
        "driven_otherwise": differences(trained_under, name) if trained_under else {},
    }
    if "hub" in source:
        imported["file"] = hub_file(source)
    return agent, {"kind": "imported", "games": [game], "protocol": asdict(PROTOCOLS[name]), "imported": imported}


def differences(library: str, protocol: str) -> dict[str, list[Any]]:
    """What two protocols do differently while an agent plays: setting, how it was trained, how it is driven."""
    before, after = asdict(PROTOCOLS[library]), asdict(PROTOCOLS[protocol])
    training = ("name", "life_loss_terminates", "clip_rewards")
    return {key: [before[key], after[key]] for key in before if key not in training and before[key] != after[key]}


def describe(agent: Agent, metadata: Mapping[str, Any]) -> str:
    """What was found, in a few lines for people."""
    imported, network, protocol = metadata["imported"], agent.network, Protocol(**metadata["protocol"])
    (game, ids), *_ = agent.actions.items()
    layers = zip(network.channels, network.kernels, network.strides, strict=True)
    lines = {
        "source": f"{imported['from']}, {imported['container']}, SHA-256 {imported['digest'][:16]}...",
        "network": ", ".join(
            [
                *(f"{filters} filters {kernel}x{kernel} stride {stride}" for filters, kernel, stride in layers),
                *(f"{units} units" for units in (network.hidden, network.controller) if units),
                f"padding {network.padding}",
                f"{agent.parameter_count:,} parameters",
            ]
        ),
        "inputs": f"pixels / {imported['input_divisor']:g}",
        "actions": f"{game} {list(ids)}",
        "protocol": protocol.name,
    }
    for setting, (before, after) in imported["driven_otherwise"].items():
        lines[f"{setting}"] = f"trained with {before}, driven with {after}"
    return "\n".join(f"{name:<10} {text}" for name, text in lines.items())


def _order(ids: list[int] | None, emulator_ids: list[int], outputs: int | None, game: str, protocol: str) -> list[int]:
    """For each of the emulator's actions the output that stands for it."""
    assert outputs is not None  # check_tensors
    if ids is None and outputs == len(emulator_ids):
        return list(range(outputs))
    if ids is None or sorted(ids) != sorted(emulator_ids):
        raise AgentImportError(
            f"{outputs} outputs{f' for the actions {ids}' if ids else ''}, but under the protocol {protocol} {game} "
            f"has the {len(emulator_ids)} actions {emulator_ids}"
        )
    return [ids.index(action) for action in emulator_ids]
