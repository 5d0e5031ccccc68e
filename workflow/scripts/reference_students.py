"""The table of the reference students, and their digests."""

from pathlib import Path

import pandas as pd
from policy_distillation.checkpoints import load_agent
from policy_distillation.joblog import logging_to
from policy_distillation.shelf import write_shelf
from policy_distillation.sidecar import copy_with_sidecar

README = """# Reference students

Distilled by this workflow from the [reference teachers](../teachers/README.md) with the loss KL
(`snakemake --profile profiles/reference_students reference_students`), float16, in sizes of the paper. Mean return and
standard error of so many games (protocol `paper2015`, epsilon 0.05), and percent of the teacher's, in
its own games. Each file names its settings, seed, data, teacher, software and hardware:
`python -m policy_distillation inspect resources/students/pong/net3/agent.safetensors`.

{table}

Each folder holds `agent.safetensors`, its learning curve `progress.csv` and its games, `scores.csv`. Watch one play:
`python -m policy_distillation watch resources/students/pong/net3/agent.safetensors`.
"""

with logging_to(snakemake.log[0]):
    rows = []
    teachers = {Path(path).parent.name: pd.read_csv(path)["return"] for path in snakemake.input.teachers}
    files = (map(Path, snakemake.input.agents), snakemake.input.scores, snakemake.output.scores)
    for path, scores, copy in zip(*files, strict=True):
        agent, metadata = load_agent(path)
        returns, (game,) = pd.read_csv(scores)["return"], agent.actions
        copy_with_sidecar(Path(scores), Path(copy))
        rows.append(
            {
                "game": game,
                "size": path.parent.name,
                "parameters": f"{agent.parameter_count:,}",
                "kB": f"{path.stat().st_size / 1000:,.0f}",
                "updates": f"{metadata['updates']:,}",
                "games": f"{len(returns)}",
                "mean return": f"{returns.mean():,.1f} ± {returns.sem():.1f}",
                "% of teacher": f"{100 * returns.mean() / teachers[game].mean():.1f}",
                "commit": (metadata["commit"] or "unknown")[:12],
            }
        )
    readme, sums = Path(snakemake.output.readme), Path(snakemake.output.sums)
    write_shelf(readme, sums, README, rows, list(map(Path, snakemake.input.agents)))
