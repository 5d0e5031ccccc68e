"""Checking the configuration before any job starts: names that mean something, cells that can be, numbers that fit.

Imports nothing heavy: every cluster job parses the workflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from .cells import SINGLE
from .config import ConfigError, check_schema
from .games import GameError, game_name, known_games
from .grid import READ_BY, Grid
from .sources import has_snapshots, learns_q_values


def check_config(config: Mapping[str, Any]) -> None:
    """Raise ConfigError unless ``config`` fits the schema and can be run."""
    check_schema(config)
    grid = Grid(config)
    _check_names(config)
    _check_recipes(grid)
    _check_teachers(grid)
    _check_students(grid)
    _check_against(grid)
    _check_joint_dqns(grid)
    _check_divisors(grid)
    _check_tracker(config["machine"]["tracker"])


def _check_names(config: Mapping[str, Any]) -> None:
    for name, members in config["game_sets"].items():
        if name in known_games():
            raise ConfigError(f"game_sets.{name}: is the name of a game, which already is the set of that game")
        for index, game in enumerate(members):
            check_game(f"game_sets.{name}[{index}]", game)
    known("teacher.network", config["teacher"]["network"], config["networks"], "network")
    for game, changes in config["teacher"]["games"].items():
        check_game("teacher.games", game)
        if "network" in changes:
            known(f"teacher.games.{game}.network", changes["network"], config["networks"], "network")
    for game in config["evaluation"]["games"]:
        check_game("evaluation.games", game)
    for name, experiment in config["experiments"].items():
        where = f"experiments.{name}"
        for index, entry in enumerate(experiment["games"]):
            check_game(f"{where}.games[{index}]", entry, config["game_sets"])
        for key, allowed in {"recipes": config["recipes"], "networks": config["networks"]}.items():
            for index, entry in enumerate(experiment[key]):
                known(f"{where}.{key}[{index}]", entry, allowed, key.removesuffix("s"))
        parts = {SINGLE, *config["recipes"], *config["networks"], *config["game_sets"]}
        for index, claim in enumerate(experiment.get("claims", [])):
            for key in ("variant", "against"):
                for part in claim[key].split("/") if key in claim else []:
                    known(f"{where}.claims[{index}].{key}", part, parts, "recipe or network")
            if claim["variant"] == claim.get("against"):
                raise ConfigError(f"{where}.claims[{index}]: compares {claim['variant']} with itself; allowed: another")


def known(key: str, name: str, allowed: Iterable[str], kind: str) -> None:
    """Raise ConfigError unless a name is one of those of its kind."""
    if name not in allowed:
        raise ConfigError(f"{key}: unknown {kind} {name!r}; allowed: {', '.join(sorted(allowed))}")


def check_game(key: str, name: str, sets: Iterable[str] = ()) -> None:
    """Raise ConfigError unless a name is a game's, or one of the sets'."""
    if name in sets or name in known_games():
        return
    try:
        meant = game_name(name)
    except GameError as error:
        also = f"; or a set of games: {', '.join(sorted(sets))}" if sets else ""
        raise ConfigError(f"{key}: {error}{also}") from None
    raise ConfigError(f"{key}: unknown game {name!r}; allowed: {meant}")


def _check_recipes(grid: Grid) -> None:
    for name, recipe in grid.config["recipes"].items():
        where = f"recipes.{name}"
        others = sorted(recipe.keys() - {"loss", "dqn", "evaluation_episodes"})
        if recipe["loss"] == "q_learning" and others:
            raise ConfigError(f"{where}: {others[0]} means nothing to q_learning; allowed: dqn, evaluation_episodes")
        full = {**grid.config["distillation"], **recipe}
        for key, (whose, needed) in READ_BY.items():
            if key in recipe and full[whose] not in needed:
                allowed = ", ".join(needed)
                raise ConfigError(f"{where}.{key}: means nothing to the {whose} {full[whose]}; allowed with {allowed}")
        if full["teacher"] == "online" and full["driver"] != "teacher":
            raise ConfigError(f"{where}: teacher is online and driver {full['driver']}; allowed: driver: teacher")


def _check_students(grid: Grid) -> None:
    """Cells that cannot be."""
    for name, experiment in grid.config["experiments"].items():
        for entry in experiment["games"]:
            for network in experiment["networks"]:
                check_controllers(grid, f"experiments.{name}.networks", entry, network)
            for recipe in experiment["recipes"]:
                check_learning(grid, f"experiments.{name}.recipes", entry, recipe)
            for game in grid.games_in(entry):
                _check_hours(grid, f"experiments.{name}.recipes", game, experiment["recipes"])


def _check_hours(grid: Grid, where: str, game: str, recipes: Iterable[str]) -> None:
    """Raise ConfigError where students that are compared have different hours of a game, as those have that learn from
    a finished teacher and from one that learns."""
    hours = {recipe: grid.hours(game, recipe) for recipe in recipes if grid.distils(recipe)}
    if len(set(hours.values())) > 1:
        told = ", ".join(f"{recipe} {count}" for recipe, count in hours.items())
        raise ConfigError(
            f"{where}: hours of {game} to learn from: {told}; a snapshot of a teacher plays a part; allowed: as many "
            f"teacher.snapshots, here {grid.teacher(game)['snapshots']}, as dataset.parts, "
            f"{grid.config['dataset']['parts']}; or no experiment with both, such as experiments: {{online: null}}"
        )


def check_controllers(grid: Grid, where: str, games: str, network: str) -> None:
    """Raise ConfigError for a network of one game where there are several."""
    networks, count = grid.config["networks"], len(grid.games_in(games))
    if count > 1 and "controller" not in networks[network]:
        fit = [key for key, sizes in networks.items() if "controller" in sizes]
        raise ConfigError(
            f"{where}: {network} has no controllers for the {count} games of {games}; allowed: {', '.join(fit)}"
        )


def check_learning(grid: Grid, where: str, games: str, recipe: str) -> None:
    """Raise ConfigError for half an emulator, a student that would never act, snapshots that nobody keeps, sampling
    where there is no policy."""
    if not grid.distils(recipe):
        return
    learning, envs = grid.recipe(recipe), grid.config["dataset"]["envs"]
    if learning["driver"] == "mix" and envs < 2:
        raise ConfigError(
            f"{where}: {recipe} has the driver mix, which shares the emulators out between teacher and student, and "
            f"dataset.envs is {envs}; allowed: 2 or more"
        )
    for game in grid.games_in(games) if learning["driver"] != "teacher" else []:
        if grid.hours(game, recipe) < 2:
            raise ConfigError(
                f"{where}: {recipe} has the driver {learning['driver']}, which acts from the second hour on, and of "
                f"{game} there is one; allowed: 2 or more in dataset.parts times dataset.hours_per_part"
            )
    for game in grid.games_in(games) if learning["acting"] == "sample" and _regresses(learning["loss"]) else []:
        source = grid.teacher(game)["source"]
        if learns_q_values(game, source):
            raise ConfigError(
                f"{where}: {recipe} learns Q-values by {learning['loss']} and is to be sampled, which takes logits; "
                f"for {game} teacher.source is {source}, whose outputs those are; allowed: acting: epsilon_greedy, or "
                "the losses kl, nll"
            )
    for game in grid.games_in(games) if learning["teacher"] == "online" else []:
        check_snapshots(
            grid, f"{where}: {recipe}", game, f"; or no experiment with {recipe}, such as experiments: {{online: null}}"
        )


def _regresses(loss: str) -> bool:
    from .losses import make_loss  # heavy; few students are sampled

    return make_loss(loss, 1.0, "q_values").regression


def check_snapshots(grid: Grid, who: str, game: str, otherwise: str = "") -> None:
    """Raise ConfigError unless a game's teacher is one that learns, of which snapshots are kept."""
    teacher = grid.teacher(game)
    source, snapshots = teacher["source"], teacher["snapshots"]
    if not (source == "train" or has_snapshots(source)) or not snapshots:
        raise ConfigError(
            f"{who} needs snapshots of a teacher that learns; for {game} teacher.source is {source!r}, "
            f"teacher.snapshots {snapshots}; allowed: train or a folder of another library's snapshots, 1 or "
            f"more{otherwise}"
        )
    apart = teacher[teacher["algorithm"]]["steps"] // snapshots
    if source == "train" and teacher["evaluate_every"] > apart:
        raise ConfigError(
            f"{who} needs snapshots that differ, each the best so far; for {game} they are {apart} steps apart, and "
            f"the teacher is scored every {teacher['evaluate_every']}; allowed: teacher.evaluate_every: {apart}, or "
            f"less{otherwise}"
        )


def _check_against(grid: Grid) -> None:
    """Variants that the experiment's figure has no place for."""
    losses = {name: recipe["loss"] for name, recipe in grid.config["recipes"].items()}
    fit = {
        key: [name for name, loss in losses.items() if loss in READ_BY[key][1]]
        for key in ("temperature", "logits_temperature")
    }
    fit["data"] = [name for name in losses if grid.distils(name)]
    for name, experiment in grid.config["experiments"].items():
        against = experiment.get("against", "")
        for recipe in experiment["recipes"] if against in fit else []:
            if recipe not in fit[against]:
                raise ConfigError(
                    f"experiments.{name}.against: {against} means nothing to {recipe}, whose loss is {losses[recipe]}; "
                    f"allowed: the recipes {', '.join(fit[against])}"
                )
        if against == "teacher" and not set(experiment["recipes"]) & set(fit["data"]):
            allowed = ", ".join(fit["data"])
            raise ConfigError(f"experiments.{name}.against: teacher needs a recipe that learns from one: {allowed}")


def _teachers(grid: Grid) -> Iterator[tuple[str, dict[str, Any]]]:
    """The settings of teachers, by where they are said: the default ones, and those of each game that changes them."""
    yield "teacher", grid.teacher("")
    for game in grid.config["teacher"]["games"]:
        yield f"teacher.games.{game}", grid.teacher(game)


def _check_teachers(grid: Grid) -> None:
    """Runs that would never learn, or break: better refused now than after a day of training."""
    networks = grid.config["networks"]
    trains = any(grid.teacher(game)["source"] == "train" for game in grid.games)
    if grid.config["teacher"]["initial_agent"] is not None and not trains:
        raise ConfigError("teacher.initial_agent: no teacher is trained here; allowed: null, or teacher.source: train")
    for where, teacher in _teachers(grid):
        check_dqn(f"{where}.dqn", teacher["dqn"])
        pqn = teacher["pqn"]
        rollout = pqn["envs"] * pqn["rollout_steps"]
        if rollout % pqn["batch_size"]:
            raise ConfigError(
                f"{where}.pqn: batch_size, {pqn['batch_size']}, does not divide envs * rollout_steps, "
                f"{pqn['envs']} * {pqn['rollout_steps']}"
            )
        if pqn["steps"] < rollout:
            raise ConfigError(
                f"{where}.pqn.steps: {pqn['steps']} end before the first update; allowed: {rollout} (a rollout) or more"
            )
        normalised = sorted(name for name, sizes in networks.items() if sizes.get("layer_norm"))
        if teacher["algorithm"] == "pqn" and teacher["source"] == "train" and teacher["network"] not in normalised:
            raise ConfigError(
                f"{where}.network: {teacher['network']} has no layer_norm, without which pqn, without a target "
                f"network, diverges; allowed: {', '.join(normalised) or 'a network with layer_norm: true'}"
            )


def _check_joint_dqns(grid: Grid) -> None:
    """Each with every set of games that it learns in some experiment."""
    for recipe in [name for name in grid.config["recipes"] if not grid.distils(name)]:
        experiments = [entry for entry in grid.config["experiments"].values() if recipe in entry["recipes"]]
        for games in {known_games()[0], *(name for entry in experiments for name in entry["games"])}:
            check_dqn(f"recipes.{recipe}.dqn", grid.joint_dqn(games, recipe), len(grid.games_in(games)))


def check_dqn(where: str, dqn: Mapping[str, Any], games: int = 1) -> None:
    """Raise ConfigError unless a DQN's replay can be filled and its steps suffice for an update.

    Args:
        where: the key, for the message.
        games: how many take turns in ``steps``; each has a replay and a warm-up of its own.
    """
    envs, warmup, size = dqn["envs"], dqn["warmup_steps"], dqn["replay_size"]
    smallest, held = envs * (dqn["n_step"] + 8), size // envs * envs
    if not smallest <= warmup <= held:
        raise ConfigError(
            f"{where}: warmup_steps is {warmup} and replay_size {size}, of which whole steps of {envs} emulators fill "
            f"{held}; allowed: {smallest} <= warmup_steps <= {held}"
        )
    first = games * -(-warmup // envs) * envs + max(envs, dqn["train_every"])
    if dqn["steps"] < first:
        of = f" of {games} games together" if games > 1 else ""
        raise ConfigError(f"{where}.steps: {dqn['steps']}{of} end before the first update; allowed: {first} or more")


def _check_divisors(grid: Grid) -> None:
    """Steps and games that are shared out evenly among emulators."""
    data, evaluation = grid.config["dataset"], grid.config["evaluation"]
    if data["steps_per_hour"] % data["envs"]:
        raise ConfigError(f"dataset.envs: {data['envs']} does not divide steps_per_hour, {data['steps_per_hour']}")
    shared = data["epsilon"] if isinstance(data["epsilon"], list) else []
    if len(shared) > data["envs"]:
        raise ConfigError(
            f"dataset.epsilon: {len(shared)} values for dataset.envs, {data['envs']}; allowed: as many or fewer"
        )
    scored = {"evaluation.episodes": evaluation["episodes"]}
    for game, changes in evaluation["games"].items():
        scored[f"evaluation.games.{game}.episodes"] = changes["episodes"]
    watched = {"distillation.evaluation_episodes": grid.config["distillation"]["evaluation_episodes"]}
    for name in grid.config["recipes"]:
        watched[f"recipes.{name}.evaluation_episodes"] = grid.recipe(name)["evaluation_episodes"]
    for where, teacher in _teachers(grid):
        watched[f"{where}.evaluation_episodes"] = teacher["evaluation_episodes"]
    for section, counts in (("evaluation", scored), ("progress_evaluation", watched)):
        envs = grid.config[section]["envs"]
        for key, episodes in counts.items():
            if episodes % envs:
                raise ConfigError(f"{key}: {episodes} is not a multiple of {section}.envs, {envs}")


def _check_tracker(tracker: str | None) -> None:
    """An installed package; a folder of that name, such as wandb leaves where it ran, is none."""
    found = tracker and find_spec(tracker)
    if tracker and not (found and found.origin):
        raise ConfigError(f"machine.tracker: {tracker} is not installed; pip install {tracker}, or tracker: null")
