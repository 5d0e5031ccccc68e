# From the configuration to paths, settings and resources. Imports nothing heavy: every cluster job parses this file.
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# Jobs import the package from this checkout, whatever environment they run in.
PACKAGE = str(Path(workflow.basedir) / "workflow")
sys.path.insert(0, PACKAGE)
os.environ |= {"PYTHONPATH": PACKAGE}

from policy_distillation.atari import known_games
from policy_distillation.config import ConfigError, check_config, teacher_settings
from policy_distillation.files import hold_lock
from policy_distillation.planning import plan_faster
from policy_distillation.slurm import forget_no_job, job_prefix, stop_orphans
from policy_distillation.sources import (
    SourceError,
    check_actions,
    check_initial_agent,
    check_source,
    imported_files,
    is_imported,
    source_path,
)

plan_faster(workflow.output_settings.quiet)

ENVIRONMENT = "../../envs/environment.yaml"


pathvars:
    results=config["results"],
    logs="<results>/logs",
    benchmarks="<results>/benchmarks",


wildcard_constraints:
    game="[a-z0-9_]+",
    games="[a-z0-9_]+",
    recipe="[a-z0-9_]+",
    network="[a-z0-9_]+",
    experiment="[a-z0-9_]+",
    seed="[0-9]+",
    part="[0-9]+",


# Names


def games_in(name):
    """The games of a set; a game's own name is the set of that game."""
    return config["game_sets"].get(name, [name])


def games_of(experiment):
    """Every game that an experiment's students play, in order."""
    return list(dict.fromkeys(game for name in experiment["games"] for game in games_in(name)))


def network(name):
    """A network's sizes."""
    return config["networks"][name]


def recipe(name):
    """What a student learns by: the defaults, and what the recipe changes."""
    return {**config["distillation"], **config["recipes"][name]}


def teacher(game):
    """How a game's teacher comes about: the defaults, and what the game changes."""
    return teacher_settings(config["teacher"], game)


def algorithm_settings(settings):
    """What the teacher's algorithm is called with."""
    return {**settings[settings["algorithm"]], "evaluate_every": settings["evaluate_every"]}


def joint_settings(games, name):
    """Those of a DQN teacher, as many steps for each game; a recipe that says how many steps means all games'."""
    settings = algorithm_settings({**config["teacher"], "algorithm": "dqn"})
    return {**settings, "steps": len(games_in(games)) * settings["steps"], **config["recipes"][name].get("dqn", {})}


# Paths


def teacher_folder(game):
    return f"<results>/teachers/{game}/seed{config['teacher']['seed']}"


def teacher_agent(game):
    return f"{teacher_folder(game)}/agent.safetensors"


def teacher_curve(game):
    """The teacher's learning curve; a teacher from elsewhere has none."""
    source = teacher(game)["source"]
    if source == "train":
        return [f"{teacher_folder(game)}/progress.csv"]
    if is_imported(source):
        return []
    curve = source_path(game, source).with_name("progress.csv")
    return [str(curve)] if curve.exists() else []


def dataset_parts(game, source="final"):
    """A game's play, part by part: by its final teacher, or each part by the next snapshot of one that learned."""
    if source == "online":
        return [f"<results>/datasets/{game}/online/part{part}.h5" for part in range(teacher(game)["snapshots"])]
    return [f"<results>/datasets/{game}/part{part}.h5" for part in range(config["dataset"]["parts"])]


def dataset_list(game, source="final"):
    folder = Path(dataset_parts(game, source)[0]).parent
    return f"{folder}/parts.txt"


def distilled(experiment):
    """The cells that learn from a teacher: all but those of Q-learning."""
    return [cell for cell in cells(experiment) if cell[1] not in Q_LEARNING]


def cells(experiment):
    """An experiment's students: (games, variant) and folder; the variant is what tells an experiment's columns apart."""
    return [
        (name, variant(experiment, recipe, network), f"<results>/students/{name}/{recipe}/{network}/seed{seed}")
        for name in experiment["games"]
        for recipe in experiment["recipes"]
        for network in experiment["networks"]
        for seed in experiment["seeds"]
    ]


def variant(experiment, recipe, network):
    parts = {"recipes": recipe, "networks": network}
    return "_".join(value for key, value in parts.items() if len(experiment[key]) > 1) or recipe


def scores(experiment):
    """(game, variant) and the scores file of each of an experiment's students on each of its games."""
    return [
        (game, variant, f"{folder}/scores/{game}.csv")
        for name, variant, folder in cells(experiment)
        for game in games_in(name)
    ]


def curves(experiment):
    """The cells whose learning curves an experiment's own figure shows: beside the teachers', or none."""
    return distilled(experiment) if experiment.get("against") == "teacher" else []


def against(experiment):
    """What the variants differ in, as rows of the table."""
    if experiment.get("against") == "parameters":
        return {"parameters": {**{name: network(name) for name in experiment["networks"]}, "teacher": network("dqn")}}
    if experiment.get("against") in ("temperature", "data"):
        return {experiment["against"]: {name: recipe(name)[experiment["against"]] for name in experiment["recipes"]}}
    return {}


def experiment(wildcards):
    return config["experiments"][wildcards.experiment]


def results_of(names):
    """What experiments ask for."""
    for name in names:
        yield f"<results>/table_{name}.csv"
        yield f"<results>/aggregates_{name}.csv"
        yield f"<results>/figures/{name}.png"
        yield f"<results>/figures/{name}_curves.png"
    if any(teacher_curve(game) for game in USED_GAMES):
        yield "<results>/figures/teacher_curves.png"


# Resources


def evaluation(game):
    """How agents are scored on a game: as everywhere, with the number of episodes that the game has."""
    settings = {**config["evaluation"], **config["evaluation"]["games"].get(game, {})}
    return {key: value for key, value in settings.items() if key not in ("seed", "games")}


def progress_evaluation(episodes):
    """A run's own evaluations: like the final ones, with as many episodes as the run asks for."""
    return {"episodes": episodes, **{key: config["evaluation"][key] for key in ("envs", "epsilon")}}


FRAME_BYTES = 84 * 84
BASE_MB = 1500  # Python, torch, the emulators and a large batch's activations


def teacher_mb(settings):
    """Memory of a training job: its replay."""
    replay = settings["dqn"]["replay_size"] if settings["algorithm"] == "dqn" else 0
    return BASE_MB + replay * (FRAME_BYTES + 8) // 10**6


def student_mb(games, name):
    """Memory of a distillation job: its windows, and one hour on its way in."""
    data = config["dataset"]
    hours = min(recipe(name)["window_hours"], data["parts"] * data["hours_per_part"]) * recipe(name)["data"]
    return BASE_MB + int(len(games_in(games)) * hours + 1) * data["steps_per_hour"] * (FRAME_BYTES + 128) // 10**6


def joint_mb(games):
    """Memory of a joint DQN: a replay for each game."""
    return BASE_MB + len(games_in(games)) * config["teacher"]["dqn"]["replay_size"] * (FRAME_BYTES + 8) // 10**6


# Wall time to ask for, in minutes, from slow guesses (1,000 steps/s, 100 updates/s). A job that runs out of time is sent
# SIGTERM, keeps its state, and goes on from there when it is retried with more.


def teacher_minutes(settings):
    return 60 + settings[settings["algorithm"]]["steps"] // 60_000


def joint_minutes(games, name):
    return 60 + joint_settings(games, name)["steps"] // 60_000


def student_minutes(games, name):
    data = config["dataset"]
    hours = data["parts"] * data["hours_per_part"]
    return 60 + len(games_in(games)) * hours * recipe(name)["updates_per_hour"] // 6_000


# Cost, before anything is launched

BYTES_PER_STEP = 72  # on disk: three parts of Pong took 3.87 MB for 54,000 steps each


def plan():
    """What every job of the experiments handles: agent steps, samples or games, with the rate that was measured."""
    data = config["dataset"]
    hour, games = data["steps_per_hour"], {game: teacher(game) for game in USED_GAMES}
    experiments = config["experiments"].values()
    students = {cell[2]: cell for entry in experiments for cell in cells(entry)}
    online = {game for _, _, folder in students.values() for game in online_games(folder)}
    for game, settings in games.items():
        if settings["source"] == "train":
            steps = settings[settings["algorithm"]]["steps"]
            yield cost("train_teacher", settings["algorithm"], steps, 1, 0.007, teacher_mb(settings))
        for name, parts in (("dump_dataset", data["parts"]), ("dump_online_dataset", settings["snapshots"])):
            if name == "dump_dataset" or game in online:
                steps = parts * data["hours_per_part"] * hour
                yield cost(name, "dump", steps, 0, steps * BYTES_PER_STEP / 1e9, BASE_MB, parts)
        yield cost("evaluate_agent", "evaluate", evaluation(game)["episodes"], 0, 0, BASE_MB)
    for folder in students:
        name, chosen = folder.split("/")[2:4]
        if chosen in Q_LEARNING:
            yield cost("train_joint_dqn", "dqn", joint_settings(name, chosen)["steps"], 1, 0.007, joint_mb(name))
        else:
            settings, hours = recipe(chosen), len(games_in(name)) * data["parts"] * data["hours_per_part"]
            samples = hours * settings["updates_per_hour"] * settings["batch_size"]
            yield cost("distill_student", "distill", samples, 1, 0.007, student_mb(name, chosen))
        for game in games_in(name):
            yield cost("evaluate_agent", "evaluate", evaluation(game)["episodes"], 0, 0, BASE_MB)


def online_games(folder):
    """The games whose snapshots a student's cell learns from."""
    name, chosen = folder.split("/")[2:4]
    return games_in(name) if recipe(chosen)["teacher"] == "online" else []


def cost(rule, rate, units, gpu, disk_gb, memory_mb, jobs=1):
    return {
        "rule": rule,
        "rate": rate,
        "jobs": jobs,
        "units": units,
        "gpu": gpu,
        "disk_gb": disk_gb,
        "memory_gb": memory_mb / 1000,
    }


# Checks, before anything runs

config["experiments"] = {
    name: entry for name, entry in config["experiments"].items() if entry
}  # `name: null`: not here
try:
    check_config(config, known_games())
    USED_GAMES = sorted({game for entry in config["experiments"].values() for game in games_of(entry)})
    for game in USED_GAMES:
        check_source(game, teacher(game)["source"], config["protocol"])
        check_initial_agent(game, teacher(game), network(teacher(game)["network"]), config["protocol"])
except (ConfigError, SourceError) as error:
    raise WorkflowError(f"config: {error}")

Q_LEARNING = [name for name, entry in config["recipes"].items() if entry["loss"] == "q_learning"]
IMPORTED_GAMES = [game for game in known_games() if is_imported(teacher(game)["source"])]
GIVEN_GAMES = [game for game in known_games() if teacher(game)["source"] != "train" and game not in IMPORTED_GAMES]
