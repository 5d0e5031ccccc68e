"""Checking the configuration before any job starts. Imports nothing heavy: every cluster job parses the workflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import yaml

SCHEMA = Path(__file__).resolve().parent / "schemas" / "config.schema.yaml"


class ConfigError(ValueError):
    """One line for the user: the key, its value and what is allowed."""


def check_config(config: Mapping[str, Any], games: Sequence[str]) -> None:
    """Raise ConfigError unless ``config`` fits the schema and every name in it means something.

    Args:
        games: the names that the emulator knows.
    """
    schema = yaml.safe_load(SCHEMA.read_text())
    errors = jsonschema.Draft202012Validator(schema).iter_errors(dict(config))
    error = jsonschema.exceptions.best_match(errors)
    if error is not None:
        raise ConfigError(schema_refusal(error))
    for name, members in config["game_sets"].items():
        if name in games:
            raise ConfigError(f"game_sets.{name}: is the name of a game, which already is the set of that game")
        for index, game in enumerate(members):
            _known(f"game_sets.{name}[{index}]", game, games, "game")
    _known("teacher.network", config["teacher"]["network"], config["networks"], "network")
    for game, changes in config["teacher"]["games"].items():
        _known("teacher.games", game, games, "game")
        _known(f"teacher.games.{game}.network", changes.get("network", "dqn"), config["networks"], "network")
    for game in config["evaluation"]["games"]:
        _known("evaluation.games", game, games, "game")
    sets = [*config["game_sets"], *games]
    for name, experiment in config["experiments"].items():
        for key, allowed in {"games": sets, "recipes": config["recipes"], "networks": config["networks"]}.items():
            for index, entry in enumerate(experiment[key]):
                kind = "game or game set" if key == "games" else key.removesuffix("s")
                _known(f"experiments.{name}.{key}[{index}]", entry, allowed, kind)
    _check_recipes(config)
    _check_students(config)
    _check_budgets(config)


def teacher_settings(teacher: Mapping[str, Any], game: str) -> dict[str, Any]:
    """How a game's teacher comes about: the defaults under ``teacher``, and what ``teacher.games`` changes for it."""
    changes = teacher["games"].get(game, {})
    return {
        key: {**value, **changes.get(key, {})} if key in ("dqn", "pqn") else changes.get(key, value)
        for key, value in teacher.items()
        if key != "games"
    }


def _check_recipes(config: Mapping[str, Any]) -> None:
    for name, recipe in config["recipes"].items():
        where = f"recipes.{name}"
        others = sorted(recipe.keys() - {"loss", "dqn", "evaluation_episodes"})
        if recipe["loss"] == "q_learning" and others:
            raise ConfigError(f"{where}: {others[0]} means nothing to q_learning; allowed: dqn, evaluation_episodes")
        if recipe["loss"] != "q_learning" and "dqn" in recipe:
            raise ConfigError(f"{where}.dqn: means nothing to the loss {recipe['loss']}; allowed with q_learning")
        full = {**config["distillation"], **recipe}
        if full["teacher"] == "online" and full["driver"] != "teacher":
            raise ConfigError(f"{where}: teacher is online and driver {full['driver']}; allowed: driver: teacher")


def _check_students(config: Mapping[str, Any]) -> None:
    """Cells that cannot be: too few controllers, snapshots that nobody keeps."""
    for name, experiment in config["experiments"].items():
        where = f"experiments.{name}"
        for entry in experiment["games"]:
            members = config["game_sets"].get(entry, [entry])
            for network in experiment["networks"]:
                if len(members) > 1 and "controller" not in config["networks"][network]:
                    fit = [key for key, sizes in config["networks"].items() if "controller" in sizes]
                    raise ConfigError(
                        f"{where}.networks: {network} has no controllers for the {len(members)} games of {entry}; "
                        f"allowed: {', '.join(fit)}"
                    )
            for recipe in experiment["recipes"]:
                online = {**config["distillation"], **config["recipes"][recipe]}["teacher"] == "online"
                for game in members if online else []:
                    teacher = teacher_settings(config["teacher"], game)
                    source, snapshots = teacher["source"], teacher["snapshots"]
                    if source != "train" or not snapshots:
                        raise ConfigError(
                            f"{where}.recipes: {recipe} needs snapshots of a teacher that is trained here; for {game} "
                            f"teacher.source is {source!r}, teacher.snapshots {snapshots}; allowed: train, 1 or more"
                        )


def _check_budgets(config: Mapping[str, Any]) -> None:
    """Numbers that must fit each other: better refused now than after a day of training."""
    data, evaluation = config["dataset"], config["evaluation"]
    if data["steps_per_hour"] % data["envs"]:
        raise ConfigError(f"dataset.envs: {data['envs']} does not divide steps_per_hour, {data['steps_per_hour']}")
    counts = {"evaluation.episodes": evaluation["episodes"]}
    for game, changes in evaluation["games"].items():
        counts[f"evaluation.games.{game}.episodes"] = changes["episodes"]
    counts["distillation.evaluation_episodes"] = config["distillation"]["evaluation_episodes"]
    for name, recipe in config["recipes"].items():
        counts[f"recipes.{name}.evaluation_episodes"] = recipe.get("evaluation_episodes", evaluation["envs"])
    teachers = {"teacher": teacher_settings(config["teacher"], "")}
    for game in config["teacher"]["games"]:
        teachers[f"teacher.games.{game}"] = teacher_settings(config["teacher"], game)
    for where, teacher in teachers.items():
        counts[f"{where}.evaluation_episodes"] = teacher["evaluation_episodes"]
        dqn, pqn = teacher["dqn"], teacher["pqn"]
        smallest = dqn["envs"] * (dqn["n_step"] + 8)
        if dqn["replay_size"] < max(smallest, dqn["warmup_steps"]) or dqn["warmup_steps"] < smallest:
            raise ConfigError(
                f"{where}.dqn: warmup_steps is {dqn['warmup_steps']} and replay_size {dqn['replay_size']}; allowed: "
                f"{smallest} <= warmup_steps <= replay_size"
            )
        if pqn["envs"] * pqn["rollout_steps"] % pqn["batch_size"]:
            raise ConfigError(
                f"{where}.pqn: batch_size, {pqn['batch_size']}, does not divide envs * rollout_steps, "
                f"{pqn['envs']} * {pqn['rollout_steps']}"
            )
    for key, episodes in counts.items():
        if episodes % evaluation["envs"]:
            raise ConfigError(f"{key}: {episodes} is not a multiple of evaluation.envs, {evaluation['envs']}")


def _known(key: str, name: str, allowed: Sequence[str] | Mapping[str, Any], kind: str) -> None:
    if name not in allowed:
        raise ConfigError(f"{key}: unknown {kind} {name!r}; allowed: {', '.join(sorted(allowed))}")


def schema_refusal(error: jsonschema.ValidationError, root: str = "config") -> str:
    """One line: the key, its value and what is allowed. ``root`` is what the whole file is called."""
    key = root
    for part in error.absolute_path:
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    key = key.removeprefix(f"{root}.")
    value, rule = error.instance, error.validator_value
    if error.validator == "additionalProperties" and rule is False:
        allowed = sorted(error.schema.get("properties", {}))
        unknown = sorted(set(value) - set(allowed))[0]
        return f"{key}: unknown key {unknown!r} (value {value[unknown]!r}); allowed: {', '.join(allowed)}"
    if error.validator == "required":
        missing = sorted(set(rule) - set(value))[0]
        return f"{key}: the key {missing!r} is missing; required: {', '.join(rule)}"
    limits = {
        "enum": ", ".join(map(str, rule)) if isinstance(rule, list) else "",
        "type": str(rule),
        "minimum": f"{rule} or more",
        "maximum": f"at most {rule}",
        "exclusiveMinimum": f"more than {rule}",
        "exclusiveMaximum": f"less than {rule}",
        "pattern": f"text that matches {rule}",
        "minItems": f"at least {rule} entries",
        "maxItems": f"at most {rule} entries",
        "uniqueItems": "no entry twice",
    }
    return f"{key}: {value!r} is not allowed; allowed: {limits.get(str(error.validator), error.message)}"
