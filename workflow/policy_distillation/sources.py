"""Teachers that need no training: reference agents in resources/teachers, agents in the user's files, or agents that
another library trained, in a file or on the model hub.

Imports nothing heavy: the workflow checks them before anything runs.
"""

from __future__ import annotations

import filecmp
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import file_digest
from .header import CheckpointError, check_weights, protocol_name, read_metadata
from .readouts import Readout

PROJECT = Path(__file__).resolve().parents[2]


def shipped(name: str) -> Path:
    """A file that comes with the project, whichever folder the workflow is run in.

    Relative in the project's own folder: what was made there stays up to date when the folder is moved.
    """
    return Path(name) if Path.cwd() == PROJECT else PROJECT / name


REFERENCE = shipped("resources/teachers")
"""{game}/agent.safetensors, its progress.csv and scores.csv; and SHA256SUMS over them all."""


Source = str | Mapping[str, Any]
"""``train``, ``reference``, the path of an agent, or where another library's agent lies: see config.schema.yaml."""

NETWORK_DEFAULTS = {"controller": None, "layer_norm": False}
"""What a network of the configuration is that does not say it, as :class:`networks.Network` has it."""
CONVOLUTIONS = {"kernels": [8, 4, 3], "strides": [4, 2, 1], "padding": "valid"}
"""What each of them is, too; agents of other libraries may differ."""

BESIDE_SNAPSHOTS = re.compile(
    r"replay_buffer|vecnormalize|_stable_baselines3_version|\.replay\.pkl$"  # Stable-Baselines3, pfrl
    r"|optimi[sz]er"
    r"|sentinel|_ckpt\.[0-9]+\.gz$"  # Dopamine: this one is complete; parts of a replay memory
    r"|tfevents|\.(csv|gif|html|json|log|md|mp4|npz|png|txt|ya?ml)$"
)
"""Names of what lies beside snapshots with the same numbers, and is no agent."""


class SourceError(ValueError):
    """A teacher that cannot be used. The message is one line for the user."""


def is_imported(source: Source) -> bool:
    """Another library trained it."""
    return not isinstance(source, str)


def imported_files(source: Mapping[str, Any]) -> list[str]:
    """The local files that an import reads; none for an agent on the hub."""
    return [str(source[key]) for key in ("path", "mapping") if key in source]


def made_from(agent: Path, path: Path, how: str) -> bool:
    """Whether a teacher is there, and was made from this file as it is now.

    Args:
        how: ``copied``; or where it says so: ``imported`` from another library's file, or trained further from
            ``initial_agent``. A copy of a teacher says of itself what that one does, so it is not asked.
    """
    if not (agent.is_file() and path.is_file()):
        return False
    if how == "copied":
        return filecmp.cmp(agent, path, shallow=False)
    try:
        origin = read_metadata(agent).get(how) or {}
        if how == "imported":
            return file_digest(path) in (origin.get("digest"), origin.get("mapping_digest"))
        return bool(read_metadata(path) == origin)
    except CheckpointError:
        return False


def is_older(path: Path, agent: Path) -> bool:
    """Whether both are there, and Snakemake will not make the agent anew for the file's date."""
    return path.is_file() and agent.is_file() and path.stat().st_mtime < agent.stat().st_mtime


def is_curve(path: Path, game: str) -> bool:
    """Whether a file is the learning curve of an agent of this game, as ``progress.csv`` is."""
    try:
        with open(path, encoding="utf-8") as file:
            columns = file.readline().strip().split(",")
    except (OSError, ValueError):
        return False
    return {"step", f"return_{game}"} <= set(columns)


def learns_q_values(game: str, source: Source) -> bool:
    """Whether a teacher's outputs are known to be Q-values before it is there: what this project trains, or a file of
    its own that says nothing else. What another library trained is known once it has been taken over."""
    if source in ("train", "reference"):
        return True
    if is_imported(source) or not Path(str(source)).is_file():
        return False
    try:
        return bool(_metadata(Path(str(source)), "teacher.source")["readouts"][game]["outputs"] != "logits")
    except (KeyError, TypeError):  # older files say nothing and hold Q-values
        return True


def has_snapshots(source: Source) -> bool:
    """Whether a source is a folder of snapshots that another library kept of one agent while it learned."""
    return not isinstance(source, str) and "path" in source and bool(snapshots(Path(source["path"])))


def snapshots(folder: Path) -> list[tuple[int, Path]]:
    """The snapshots in a folder, by the last number in their names, endings aside: steps, frames or iterations. None in
    the folder of one agent (pfrl's, with its ``model.pt``), nor in a file."""
    if not folder.is_dir() or (folder / "model.pt").exists():
        return []
    numbers = {path: re.findall(r"[0-9]+", path.stem) for path in folder.iterdir()}
    numbers |= {path: [path.suffix[1:]] for path in numbers if re.fullmatch(r"\.[0-9]+", path.suffix)}  # ckpt.199
    beside = {path for path in numbers if path.name.startswith(".") or BESIDE_SNAPSHOTS.search(path.name)}
    return sorted((int(found[-1]), path) for path, found in numbers.items() if found and path not in beside)


def snapshot(folder: Path, share: float) -> Path:
    """The newest snapshot of the first ``share`` of an agent's training, or its first one if that came later."""
    kept = snapshots(folder)
    reached = [path for number, path in kept if number <= share * kept[-1][0]]
    return reached[-1] if reached else kept[0][1]


def hub_file(source: Mapping[str, Any], key: str = "teacher.source") -> str:
    """The name of an agent's file in its repository on the hub: as given, or as the library names it.

    Args:
        key: where the source is said.
    """
    repository = str(source["hub"]).split("/")[-1]
    if "file" in source:
        return str(source["file"])
    if source.get("from") == "sb3":  # sb3/dqn-PongNoFrameskip-v4: dqn-PongNoFrameskip-v4.zip
        return f"{repository}.zip"
    if source.get("from") == "cleanrl" and repository.count("-") >= 2:  # .../PongNoFrameskip-v4-dqn_atari-seed1
        return f"{repository.split('-')[-2]}.cleanrl_model"
    raise SourceError(f"{key}: {source['hub']} is on the hub, so the key 'file' (--hub-file) must name the file in it")


def check_import(source: Mapping[str, Any], key: str) -> None:
    """Raise SourceError unless the keys fit each other and the local files exist. The job itself reads them.

    Args:
        key: where the source is said.
    """
    if ("path" in source) == ("hub" in source):
        raise SourceError(f"{key}: give either 'path', a file, or 'hub' and 'revision'")
    for name in ("revision", "file"):
        if name in source and "hub" not in source:
            raise SourceError(f"{key}: {name!r} belongs to 'hub'")
    if "hub" in source:
        if "revision" not in source:
            raise SourceError(f"{key}: {source['hub']} needs a 'revision', the commit that you looked at")
        hub_file(source, key)
    if (source["from"] == "mapping") != ("mapping" in source):
        raise SourceError(f"{key}: 'mapping', a YAML file that describes the network, belongs to 'from: mapping'")
    for name in imported_files(source):
        if not Path(name).exists():
            on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).suffix and name == source.get("path")
            also = "; a repository on the hub needs its commit: --revision, or 'hub' and 'revision'" if on_hub else ""
            raise SourceError(f"{key}: {name} does not exist{also}")


def source_path(game: str, source: str) -> Path:
    """The file that a game's teacher is taken from; ``source`` is ``reference`` or a path."""
    return REFERENCE / game / "agent.safetensors" if source == "reference" else Path(source)


def check_source(game: str, source: Source, protocol: str, key: str = "teacher.source") -> None:
    """Raise SourceError unless a game's teacher is to be trained, or its file is whole and plays the game.

    Args:
        key: where the source is said.
    """
    if source == "train":
        return
    if not isinstance(source, str):
        return check_import(source, f"{key}: from {source['from']}")
    path = source_path(game, source)
    key = f"{key}: {source}" if source == "reference" else key
    if path.is_dir():
        raise SourceError(f"{key}: {path} is a folder; allowed: the agent.safetensors in it")
    if not path.is_file():
        have = ", ".join(sorted(folder.parent.name for folder in REFERENCE.glob("*/agent.safetensors"))) or "none"
        raise SourceError(f"{key}: {path} does not exist; reference teachers here: {have}; or use `train` or a path")
    if source == "reference" and f"{file_digest(path)}  {game}/agent.safetensors" not in _digests():
        raise SourceError(f"{key}: {path} is not the file that {REFERENCE}/SHA256SUMS names; restore it from git")
    _check_agent(key, path, game, protocol)


def check_teachers(teachers: Mapping[str, Mapping[str, Any]], config: Mapping[str, Any]) -> None:
    """Raise SourceError unless every game's teacher can be had; ``teachers`` holds the settings of each game's."""
    for game, teacher in teachers.items():
        own, network = config["teacher"]["games"].get(game, {}), config["networks"][teacher["network"]]
        source, initial = (
            f"teacher.games.{game}.{key}" if key in own else f"teacher.{key}" for key in ("source", "initial_agent")
        )
        check_source(game, teacher["source"], config["protocol"], source)
        check_initial_agent(game, teacher, network, config["protocol"], initial)


def check_initial_agent(
    game: str,
    teacher: Mapping[str, Any],
    network: Mapping[str, Any],
    protocol: str,
    key: str = "teacher.initial_agent",
) -> None:
    """Raise SourceError unless a game's training can go on from ``initial_agent``, if one is named.

    Args:
        teacher: the game's settings.
        network: the sizes of the network that they name.
        key: where the agent is said.
    """
    if teacher["source"] != "train" or teacher["initial_agent"] is None:
        return
    path = Path(teacher["initial_agent"])
    if not path.is_file():
        raise SourceError(f"{key}: {path} does not exist; allowed: the path of an agent.safetensors, or null")
    metadata = _check_agent(key, path, game, protocol)
    need, made = {**NETWORK_DEFAULTS, **network}, metadata.get("network", {})
    need |= {name: value for name, value in CONVOLUTIONS.items() if made.get(name, value) != value}
    have = {name: made.get(name) for name in need}
    if have != need:
        raise SourceError(f"{key}: {path} has the network {have}; teacher.network {teacher['network']} is {need}")
    if others := sorted(metadata["actions"].keys() - {game}):
        raise SourceError(f"{key}: {path} plays {', '.join(others)}, too; allowed: an agent of {game} alone")
    learnt = Readout().to_json()
    readout = metadata.get("readouts", {}).get(game, learnt)
    if readout != learnt:
        kind = "distributions over values" if readout.get("support") else readout.get("outputs")
        raise SourceError(f"{key}: {path} has {kind} as outputs; allowed: q_values, which teachers learn")


def _check_agent(key: str, path: Path, game: str, protocol: str) -> dict[str, Any]:
    metadata = _metadata(path, key)
    try:
        check_weights(path, metadata)
        made = protocol_name(metadata, path)
    except CheckpointError as error:
        raise SourceError(f"{key}: {error}") from None
    plays = sorted(metadata.get("actions", {}))
    if game not in plays:
        raise SourceError(f"{key}: {path} does not play {game}; it plays {', '.join(plays) or 'nothing'}")
    if made != protocol:
        raise SourceError(f"{key}: {path} was made under the protocol {made}, but protocol is {protocol}")
    return metadata


def check_actions(game: str, source: Source, protocol: str) -> None:
    """Raise SourceError unless the teacher's actions are those that the emulator has. Starts an emulator."""
    if source == "train" or not isinstance(source, str):  # an import sees to its actions itself
        return
    from .atari import action_ids
    from .protocols import PROTOCOLS

    path = source_path(game, source)
    have, need = read_metadata(path)["actions"][game], action_ids(game, PROTOCOLS[protocol])
    if have != need:
        raise SourceError(f"{path} has the actions {have} for {game}, the emulator {need}")


def _digests() -> list[str]:
    return (REFERENCE / "SHA256SUMS").read_text().splitlines()


def _metadata(path: Path, key: str) -> dict[str, Any]:
    """An agent's own description."""
    try:
        return read_metadata(path)
    except CheckpointError as error:
        raise SourceError(f"{key}: {error}") from None
