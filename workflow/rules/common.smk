# The configuration, checked, and what the rules share. Imports nothing heavy: every cluster job parses this file.
import os
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# Jobs import the package from this checkout, whatever environment they run in.
ROOT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]
PACKAGE = str(ROOT / "workflow")
sys.path.insert(0, PACKAGE)
# Before what is there: many sites provide packages by it.
os.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, [PACKAGE, os.getenv("PYTHONPATH")]))}

from policy_distillation import resources
from policy_distillation.cells import (
    beside_teachers,
    figure_facts,
    figures,
    filmed,
    results_of,
    scored,
    table_facts,
    taught,
    variant,
    variants,
    with_curves,
)
from policy_distillation.checks import check_config
from policy_distillation.command import read_command
from policy_distillation.config import ConfigError
from policy_distillation.files import hold_lock
from policy_distillation.games import known_games
from policy_distillation.grid import Grid, algorithm_settings
from policy_distillation.hardware import limits
from policy_distillation.overlays import LOCAL, lay, layers, typed
from policy_distillation.planning import plan_faster
from policy_distillation.slurm import forget_no_job, job_prefix, stop_orphans
from policy_distillation.sources import (
    SourceError,
    check_actions,
    check_teachers,
    imported_files,
    is_older,
    made_from,
    shipped,
    source_path,
)
from policy_distillation.targets import check_place, check_target

plan_faster(workflow.output_settings.quiet)

# Which files are laid over config.yaml: this process decides, and its jobs are told by --configfiles. Used as a module,
# the project has the settings that the module statement gives it, laid over config.yaml in the same way.
command = read_command(sys.argv[1:], os.environ, Path(workflow.rundir)) if workflow.is_main_process else None
if workflow.modifier.is_main_snakefile():
    if command:
        workflow.config_settings.configfiles = [
            *filter(Path.exists, [ROOT / LOCAL]),
            *command.configfiles,
            *workflow.config_settings.configfiles,
        ]
    files, arguments = workflow.config_settings.configfiles, typed(workflow.config_settings.config)
else:
    files, arguments = [], config
try:
    stack = layers(ROOT / "config.yaml", files, arguments)
    workflow.configfiles = [path for path, _ in stack if path.is_file()]  # shown, reported, and sent to jobs elsewhere
    config = lay(stack)
    grid = Grid(config)
    if workflow.is_main_process:  # its jobs may be on machines where teachers' files are not
        check_config(config)
        check_teachers({game: grid.teacher(game) for game in grid.games}, config)
    for argument in command.rest if command else []:
        check_target(grid, argument)
        if workflow.modifier.is_main_snakefile():  # another workflow's own targets are its own affair
            check_place(grid, argument)
except (ConfigError, SourceError) as error:
    told = str(error).removeprefix("config: ")
    raise WorkflowError(f"config: {told}")


# Jobs that run here share what the machine has, unless --resources says otherwise. One that asks for more runs alone.
if command and command.executor == "local":
    for resource, amount in limits(config["machine"]["device"]).items():
        workflow.global_resources.setdefault(resource, amount)

GPU = resources.gpus(grid)


pathvars:
    results=config["results"],
    logs="<results>/logs",
    benchmarks="<results>/benchmarks",


def one_of(names):
    """A wildcard's constraint; where there are no names, nothing fits."""
    return "|".join(names) or "(?!)"


wildcard_constraints:
    game="[a-z0-9_]+",
    games="[a-z0-9_]+",
    recipe="[a-z0-9_]+",
    network="[a-z0-9_]+",
    experiment=one_of(config["experiments"]),
    seed="[0-9]+",
    part="[0-9]+",


def experiment(wildcards):
    return config["experiments"][wildcards.experiment]


def who_starts(wildcards):
    """The agent that plays a scored game's first steps, or none."""
    return grid.teacher_agent(wildcards.game) if config["evaluation"]["starts"] == "teacher" else []


def here(path):
    """An input; one that comes with the checkout or from the user's disk is never looked for in a bucket."""
    return path if path.startswith("<results>") else local(path)


def ours(name):
    """A file that comes with the project."""
    return here(str(shipped(name)))


def made_of(path, wc, how):
    """A file that a teacher is made of. While it holds the same it counts as old, since git dates a clone's files anew;
    one that holds something else must, as any input, be newer than the teacher."""
    agent = Path(config["results"], "teachers", wc.game, f"seed{wc.seed}", "agent.safetensors")
    if made_from(agent, Path(path), how):
        return ancient(here(path))
    if command and is_older(Path(path), agent):
        warn(f"{agent} was not made of what {path} is now, which is older: touch {path} to make it anew")
    return here(path)


@cache
def warn(text):
    """Once, however often Snakemake asks for an input."""
    logger.warning(text)


def travelling(paths):
    """Inputs that jobs read beside those that they wait for: declared where they must be fetched from a bucket."""
    return list(paths) if workflow.storage_settings.default_storage_provider else []
