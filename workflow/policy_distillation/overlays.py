"""The configuration's files: read strictly, and laid over each other, the later over the earlier.

    config.yaml                 the paper's protocol; nobody edits it
    config.local.yaml           beside it, not in git: what you change for every run
    a profile's configfile      such as profiles/demo/overrides.yaml
    --configfile mine.yaml      what you change for this run
    --config results=results/x  a value on the command line

Any file may say ``extends: other.yaml`` (or a list), relative to itself: those are laid below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .config import ConfigError
from .games import GameError, with_game_names

Config = dict[str, Any]
LOCAL = "config.local.yaml"


class StrictLoader(yaml.SafeLoader):
    """YAML in which a key may stand once, and 1e-4 and 5e7 are numbers, as in YAML 1.2: the latter a whole one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[Any, int] = {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name, line = self.construct_object(key, deep=True), key.start_mark.line + 1
            if name in first:
                raise ConfigError(
                    f"{self.name}:{line}: the key {name!r} stands there twice, first in line {first[name]}"
                )
            first[name] = line
        return super().construct_mapping(node, deep)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        number: float = super().construct_yaml_float(node)
        return whole(number) if "e" in node.value.lower() else number


def whole(number: float) -> float:
    """An int where nothing is lost by it: steps, 5e7 of them, are counted."""
    return int(number) if number.is_integer() else number


StrictLoader.add_constructor("tag:yaml.org,2002:float", StrictLoader.construct_yaml_float)
StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read(path: Path) -> Config:
    """A configuration file; empty, it changes nothing.

    Raises ConfigError where it is not YAML, holds a key twice, or is no mapping.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.load(file, StrictLoader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: does not exist") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: not a mapping, which is lines of the form `key: value`")
    return content


def with_extended(path: Path, content: Config, above: Sequence[Path] = ()) -> list[tuple[Path, Config]]:
    """A file's layers: those of the files that it extends, and its own.

    Args:
        content: what the file says.
        above: the files that led here.
    """
    path, own = path.resolve(), {key: value for key, value in content.items() if key != "extends"}
    names = content.get("extends", [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: extends: {names!r} is not allowed; allowed: a file, or a list of files")
    below = []
    for name in names:
        other = (path.parent / name).resolve()
        if other in (path, *above):
            raise ConfigError(f"{path}: extends: {name} leads back to itself")
        if not other.is_file():
            raise ConfigError(f"{path}: extends: {other} does not exist; paths are relative to the file that says it")
        below += with_extended(other, read(other), (path, *above))
    return [*below, (path, own)]


def layers(protocol: Path, files: Iterable[Path], arguments: Mapping[str, Any]) -> list[tuple[Path, Config]]:
    """The protocol, the files and further settings, in this order, each above what it extends."""
    contents = [(path, read(path)) for path in (protocol, *files)]
    contents.append((Path("settings"), dict(arguments)))  # in no file; what they extend is relative to the folder
    return [layer for path, content in contents for layer in with_extended(path, content)]


def lay(layers: Iterable[tuple[Path, Config]]) -> Config:
    """All layers in one; a file that several extend is laid once, where it comes first.

    An experiment that a layer sets to null is left out, unless a later layer says something of it.
    """
    config: Config = {}
    laid: list[Path] = []
    hidden: set[str] = set()
    for path, content in layers:
        if path in laid:
            continue
        laid.append(path)
        try:
            content = with_game_names(content)
        except GameError as error:
            raise ConfigError(f"{path}: {error}") from None
        experiments = content.get("experiments")
        if isinstance(experiments, Mapping):
            known = config.get("experiments")
            for name, entry in experiments.items():
                if entry is None and isinstance(known, dict) and name not in known:
                    raise ConfigError(
                        f"{path}: experiments.{name}: null leaves an experiment out, and there is none of this name; "
                        f"allowed: {', '.join(sorted(known))}"
                    )
            hidden = {name for name in {*hidden, *experiments} if experiments.get(name, None) is None}
            shown = {name: entry for name, entry in experiments.items() if entry is not None}
            content = {**content, "experiments": shown}
        config = merged(config, content)
    if isinstance(config.get("experiments"), dict):
        config["experiments"] = {name: entry for name, entry in config["experiments"].items() if name not in hidden}
    return config


def merged(config: Config, change: Mapping[str, Any]) -> Config:
    """``change`` laid over ``config``: sections key by key, everything else whole; so a teacher's source, too.

    A number stays as it is written if it is the same one: 1 laid over 1.0 is no change, which would make things anew.
    """
    result = dict(config)
    for key, value in change.items():
        old = result.get(key)
        if isinstance(value, Mapping) and key != "source":
            result[key] = merged(old if isinstance(old, dict) else {}, value)
        elif not ({type(old), type(value)} == {int, float} and old == value):
            result[key] = value
    return result


def typed(value: Any) -> Any:
    """A value of ``--config``: the numbers inside it, which Snakemake leaves as text, are numbers again."""
    if isinstance(value, Mapping):
        return {key: typed(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [typed(entry) for entry in value]
    try:
        scalar = yaml.load(value, StrictLoader) if isinstance(value, str) and value else value
    except yaml.YAMLError:
        return value
    if isinstance(scalar, float):  # Snakemake reads 5e7 so
        return whole(scalar)
    return scalar if scalar is None or isinstance(scalar, (bool, int)) else value
