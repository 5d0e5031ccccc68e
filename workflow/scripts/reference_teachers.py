"""The table of the reference teachers, and the digests that the workflow checks before it uses one."""

from pathlib import Path

import pandas as pd
from policy_distillation.header import read_metadata
from policy_distillation.joblog import logging_to
from policy_distillation.shelf import write_shelf
from policy_distillation.sidecar import copy_with_sidecar

README = """# Reference teachers

Trained by this workflow, float16. Mean return and standard error of so many games (protocol `paper2015`, epsilon
0.05). Each file names its settings, seed, software and hardware: `python -m policy_distillation inspect
resources/teachers/pong/agent.safetensors`. `snakemake --profile profiles/reference reference_teachers` trains the
paper's ten games with these settings, Qbert in one run of as many steps.

{table}

Each folder holds `agent.safetensors`, its learning curve `progress.csv` and its games, `scores.csv`. Where the steps
are a sum, an agent was trained further
([`profiles/reference/further.yaml`](../../profiles/reference/further.yaml)); the file describes the earlier training
too, and the curve is of the later one.
"""


def steps(metadata):
    """Of each training that an agent went through."""
    initial = metadata.get("initial_agent")
    return [*(steps(initial) if initial else []), metadata["steps"]]


with logging_to(snakemake.log[0]):
    rows = []
    files = (map(Path, snakemake.input.agents), snakemake.input.scores, snakemake.output.scores)
    for path, scores, copy in zip(*files, strict=True):
        metadata, returns = read_metadata(path), pd.read_csv(scores)["return"]
        copy_with_sidecar(Path(scores), Path(copy))
        rows.append(
            {
                "game": path.parent.name,
                "algorithm": metadata["algorithm"],
                "agent steps": " + ".join(f"{trained:,}" for trained in steps(metadata)),
                "games": f"{len(returns)}",
                "mean return": f"{returns.mean():,.1f} ± {returns.sem():.1f}",
                "commit": (metadata["commit"] or "unknown")[:12],
                "seed": metadata["seed"],
            }
        )
    readme, sums = Path(snakemake.output.readme), Path(snakemake.output.sums)
    write_shelf(readme, sums, README, rows, list(map(Path, snakemake.input.agents)))
