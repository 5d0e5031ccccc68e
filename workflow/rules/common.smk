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
from policy_distillation.config import ConfigError, check_config
from policy_distillation.locks import hold_lock

try:
    check_config(config, known_games())
except ConfigError as error:
    raise WorkflowError(f"config: {error}")

ENVIRONMENT = "../../envs/environment.yaml"


pathvars:
    results=config["results"],
    logs="<results>/logs",
    benchmarks="<results>/benchmarks",
    teacher="<results>/teachers/{game}/seed{seed}",
    student="<results>/students/{games}/{recipe}/{network}/seed{seed}",


wildcard_constraints:
    game="[a-z0-9_]+",
    games="[a-z0-9_]+",
    recipe="[a-z0-9_]+",
    network="[a-z0-9_]+",
    seed="[0-9]+",
    part="[0-9]+",


def games_in(name):
    """The games of a set; a game's own name is the set of that game."""
    return config["game_sets"].get(name, [name])


def network(name):
    """A network's sizes."""
    return config["networks"][name]


def recipe(name):
    """What a student learns by: the defaults, and what the recipe changes."""
    return {**config["distillation"], **config["recipes"][name]}


def teacher_folder(game):
    return f"<results>/teachers/{game}/seed{config['teacher']['seed']}"


def student_folder(games, recipe, network, seed):
    return f"<results>/students/{games}/{recipe}/{network}/seed{seed}"


def teacher_agent(game):
    return f"{teacher_folder(game)}/agent.safetensors"


def single_task_cells():
    """(game, recipe, seed) -> the student's folder."""
    experiment = config["experiments"]["single_task"]
    return {
        (game, name, seed): student_folder(game, name, experiment["network"], seed)
        for game in experiment["games"]
        for name in experiment["recipes"]
        for seed in experiment["seeds"]
    }


def progress_evaluation():
    """What a run's own evaluations share with the final ones; their number of episodes is the run's own."""
    return {key: config["evaluation"][key] for key in ("envs", "epsilon")}


def dataset_parts(game):
    return [f"<results>/datasets/{game}/part{part}.h5" for part in range(config["dataset"]["parts"])]


FRAME_BYTES = 84 * 84
BASE_MB = 1500  # Python, torch, the emulators and a large batch's activations


def teacher_mb(games=1):
    """Memory of a training job: its replays."""
    return BASE_MB + games * config["teacher"]["dqn"]["replay_size"] * (FRAME_BYTES + 8) // 10**6


def student_mb(games, name):
    """Memory of a distillation job: its windows, and one hour on its way in."""
    data = config["dataset"]
    hours = min(recipe(name)["window_hours"], data["parts"] * data["hours_per_part"])
    return BASE_MB + (len(games_in(games)) * hours + 1) * data["steps_per_hour"] * (FRAME_BYTES + 128) // 10**6


# Wall time to ask for, in minutes, from slow guesses (1,000 steps/s, 100 updates/s). A job that runs out of time is sent
# SIGTERM, keeps its state, and goes on from there when it is retried with more.


def teacher_minutes():
    return 60 + config["teacher"]["dqn"]["steps"] // 60_000


def student_minutes(games, name):
    data = config["dataset"]
    hours = data["parts"] * data["hours_per_part"]
    return 60 + len(games_in(games)) * hours * recipe(name)["updates_per_hour"] // 6_000


def all_results():
    """What config.yaml's experiments ask for."""
    return [
        "<results>/table_single_task.csv",
        "<results>/figures/single_task.png",
        "<results>/figures/teacher_curves.png",
        "<results>/figures/student_curves.png",
    ]
