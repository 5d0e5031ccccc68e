"""From a source in the configuration to an agent of this project and the record of where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..atari import action_ids
from ..files import file_digest
from ..header import CheckpointError, read_metadata
from ..networks import Agent
from ..protocols import PROTOCOLS, Protocol
from ..readouts import describe_acting
from ..sources import has_snapshots, hub_file, snapshot
from .containers import AgentImportError, Content, read_tensors
from .declarations import Declaration
from .folding import build_agent
from .libraries import LIBRARIES, SCALING_WRAPPER
from .mappings import read_declaration
from .recognition import Recognised, recognise, resolve_head, tidy
from .refusals import check_tensors


def download(source: Mapping[str, Any]) -> Path:
    """The file of a source on the model hub, at its pinned revision, from the cache where it is there already.

    ``HF_HUB_OFFLINE=1`` allows the cache alone; ``HF_HOME`` says where that is.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ModuleNotFoundError as error:
        raise AgentImportError(
            f"{source['hub']}: a file on the model hub needs {error.name}: pip install 'policy-distillation[hub]'"
        ) from None

    name = hub_file(source)
    try:
        return Path(hf_hub_download(source["hub"], name, revision=source["revision"]))
    except Exception as error:  # the hub's client raises its own errors, its HTTP library's and the system's
        line = " ".join(str(error).split())[:300]
        raise AgentImportError(f"{source['hub']}: cannot download {name} ({type(error).__name__}: {line})") from None


def import_agent(source: Mapping[str, Any], game: str, protocol: str | None = None) -> tuple[Agent, dict[str, Any]]:
    """Read an agent that another library saved.

    Args:
        source: an entry of ``teacher.source`` in the configuration; without ``from`` the library is guessed. Of a
            folder of snapshots the newest is read.
        game: a name that ale-py knows.
        protocol: how the agent will be driven; by default as its library does, for a mapping ``paper2015``.

    Returns:
        The agent and metadata for :func:`policy_distillation.checkpoints.save_agent`.

    Raises:
        AgentImportError: the file is no such agent, or its actions are not the protocol's.
    """
    path = download(source) if "hub" in source else Path(source["path"])
    if has_snapshots(source):
        path = snapshot(path, 1.0)
    content = read_tensors(path)
    if content.container == "safetensors" and not source.get("mapping"):
        try:
            read_metadata(path)
        except CheckpointError:
            pass  # somebody else's
        else:
            raise AgentImportError(f"{path}: already an agent of this project; it can be used as it is")
    try:
        found, ids = _recognise(content, source)
        declaration = _overridden(found.declaration, source)
        trained_under = LIBRARIES[found.library].protocol if found.library in LIBRARIES else None
        name = protocol or trained_under or "paper2015"
        emulator_ids = action_ids(game, PROTOCOLS[name])
        rows = declaration.rows(found.tensors)
        width = declaration.head.width
        actions = len(ids or emulator_ids) if ids or rows is None or rows % width else rows // width
        check_tensors(declaration, found.tensors, actions)
        order = _order(ids, emulator_ids, actions, game, name)
        agent = build_agent(declaration, found.tensors, game, emulator_ids, order)
    except AgentImportError as error:
        raise AgentImportError(f"{path}: {error}") from None
    imported = {
        **{key: value for key, value in source.items() if key not in ("from", "actions")},
        "from": found.library,
        "agent": declaration.kind,
        "container": content.container,
        **({"snapshot": path.name} if has_snapshots(source) else {}),
        "digest": file_digest(path / "model.pt" if path.is_dir() else path),
        **({"mapping_digest": file_digest(Path(source["mapping"]))} if source.get("mapping") else {}),
        "facts": content.facts,
        "input_divisor": declaration.input_divisor,
        "layout": declaration.layout,
        "readout": asdict(declaration.head),
        "actions": ids or emulator_ids,
        "notes": list(declaration.notes),
        "trained_under": trained_under,
        "driven_otherwise": differences(trained_under, name) if trained_under else {},
    }
    if "hub" in source:
        imported["file"] = hub_file(source)
    return agent, {"kind": "imported", "games": [game], "protocol": asdict(PROTOCOLS[name]), "imported": imported}


def import_snapshots(
    source: Mapping[str, Any], game: str, protocol: str, count: int
) -> Iterator[tuple[Agent, dict[str, Any]]]:
    """As many of a folder's snapshots, in order: after each of ``count`` equal stretches of training the newest."""
    for part in range(count):
        path = snapshot(Path(source["path"]), (part + 1) / count)
        yield import_agent({**source, "path": str(path)}, game, protocol)


def _recognise(content: Content, source: Mapping[str, Any]) -> tuple[Recognised, list[int] | None]:
    """What the file holds, and the ALE ids of its outputs where source or mapping say."""
    ids: list[int] | None = source.get("actions")
    if source.get("mapping"):
        declaration, declared_ids = read_declaration(Path(source["mapping"]))
        named_as_they_are = set(declaration.shapes(1)) <= set(content.tensors)
        tensors, notes = (content.tensors, []) if named_as_they_are else tidy(content)
        declaration = resolve_head(declaration, tensors, content, "as the mapping says")
        if declaration.head.kind == "categorical" and declaration.head.support is None:
            raise AgentImportError(f"the file lacks its support, {declaration.head.support_key}")
        declaration = replace(declaration, notes=(*declaration.notes, *notes))
        return Recognised("mapping", declaration, tensors), ids or declared_ids
    return recognise(content, source.get("from")), ids


def _overridden(declaration: Declaration, source: Mapping[str, Any]) -> Declaration:
    """What the source says goes before what the library says."""
    if "input_divisor" in source:
        notes = tuple(note for note in declaration.notes if note != SCALING_WRAPPER)
        declaration = replace(declaration, input_divisor=float(source["input_divisor"]), notes=notes)
    try:
        return replace(declaration, **{key: source[key] for key in ("outputs", "acting") if key in source})
    except ValueError as error:
        raise AgentImportError(str(error)) from None


def differences(library: str, protocol: str) -> dict[str, list[Any]]:
    """What two protocols do differently while an agent plays: setting, how it was trained, how it is driven."""
    before, after = asdict(PROTOCOLS[library]), asdict(PROTOCOLS[protocol])
    training = ("name", "life_loss_terminates", "clip_rewards")
    return {key: [before[key], after[key]] for key in before if key not in training and before[key] != after[key]}


_OUTPUTS = {
    ("plain", "q_values"): "Q-values",
    ("plain", "logits"): "logits of a policy",
    ("quantiles", "q_values"): "Q-values, the means of its quantiles",
    ("categorical", "q_values"): "Q-values, the means of distributions over a support",
}


def describe(agent: Agent, metadata: Mapping[str, Any]) -> str:
    """What was found, in a few lines for people."""
    imported, network, protocol = metadata["imported"], agent.network, Protocol(**metadata["protocol"])
    (game, ids), *_ = agent.actions.items()
    readout = agent.readouts[game]
    layers = zip(network.channels, network.kernels, network.strides, strict=True)
    lines = {
        "agent": f"{imported['agent']}: {_OUTPUTS[imported['readout']['kind'], readout.outputs]}"
        + ("; a critic is left out" if readout.acting == "sample" else ""),
        "acts": describe_acting(readout),
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
    lines |= {f"note {number}": note for number, note in enumerate(imported["notes"], start=1)}
    for setting, (before, after) in imported["driven_otherwise"].items():
        lines[setting] = f"trained with {before}, driven with {after}"
    return "\n".join(f"{name:<10} {text}" for name, text in lines.items())


def _order(ids: list[int] | None, emulator_ids: list[int], outputs: int, game: str, protocol: str) -> list[int]:
    """For each of the emulator's actions which of the file's it is."""
    if ids is None and outputs == len(emulator_ids):
        return list(range(outputs))
    if ids is None or sorted(ids) != sorted(emulator_ids):
        every = ids is None and outputs == len(action_ids(game, PROTOCOLS["machado2018"]))
        raise AgentImportError(
            f"{outputs} outputs{f' for the actions {ids}' if ids else ''}, but under the protocol {protocol} {game} "
            f"has the {len(emulator_ids)} actions {emulator_ids}"
            + ("; so many has the emulator in all: --protocol machado2018, or protocol: machado2018" if every else "")
        )
    return [ids.index(action) for action in emulator_ids]
