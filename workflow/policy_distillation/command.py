"""What a Snakemake command says and a Snakefile is not told: the executor, and the configfiles of its profiles."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    executor: str
    """What runs the jobs: local, slurm, ..."""
    configfiles: list[Path]
    """Those of its profiles, which Snakemake drops where the command names others."""
    rest: list[str]
    """Its other arguments, targets among them; where a report is to be written is none of those."""


def read_command(arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> Command:
    """Look at a command as Snakemake does; of profiles, the last that says something wins.

    Args:
        arguments: without the program's name.
        folder: where it was typed.
    """
    import yte
    from snakemake.cli import get_profile_dir

    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--profile", action="append")
    parser.add_argument("--workflow-profile")
    parser.add_argument("--executor", "-e")
    parser.add_argument("--report", nargs="?")
    try:
        known, rest = parser.parse_known_args([*arguments])
    except argparse.ArgumentError:  # Snakemake itself will say so
        return Command("local", [], [*arguments])
    executor = "local"
    files: list[Path] = []
    profiles = known.profile or [environment.get("SNAKEMAKE_PROFILE")]
    for profile in filter(None, [*profiles, known.workflow_profile]):
        found = get_profile_dir(str(folder / profile) if (folder / profile).exists() else profile)
        if found is None:
            continue
        with open(found[1], encoding="utf-8") as file:
            options = yte.process_yaml(file, require_use_yte=True) or {}
        executor = options.get("executor", executor)
        named = options.get("configfile", options.get("configfiles", []))
        if isinstance(named, str):  # beside the profile if it is there, as Snakemake has it
            named = [found[0] / named if (found[0] / named).exists() else named]
        files = [folder / name for name in named] or files
    return Command(known.executor or executor, files, rest)
