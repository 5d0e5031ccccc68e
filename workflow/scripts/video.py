"""A teacher and its students at play, side by side."""

from pathlib import Path

from policy_distillation import openmp

openmp.prepare("play")  # before torch is loaded

from policy_distillation.files import file_digest
from policy_distillation.hardware import job_device
from policy_distillation.joblog import logging_to
from policy_distillation.readable import label
from policy_distillation.sidecar import write_sidecar
from policy_distillation.training import prepare_process
from policy_distillation.video import write_video
from policy_distillation.watch import RATE, Showing, View

params, output = snakemake.params, Path(snakemake.output.video)
with logging_to(snakemake.log[0]):
    job_device("cpu")
    prepare_process(params.seed, threads=1)
    agents = [Path(path) for path in (snakemake.input.teacher, *snakemake.input.students)]
    view = View(
        game=snakemake.wildcards.game,
        protocol=params.protocol,
        epsilon=params.epsilon,
        seed=params.seed,
        seconds=params.seconds,
    )
    showing = Showing(agents, view, [label(title) for title in params.titles])
    write_video(iter(showing), output, RATE)
    print(f"scores: {showing.outcome}")
    facts = {
        "kind": "video",
        **dict(params.items()),
        "game": view.game,
        "scores": showing.outcome,
        "agents": {str(path): file_digest(path) for path in agents},
    }
    write_sidecar(output, facts)
