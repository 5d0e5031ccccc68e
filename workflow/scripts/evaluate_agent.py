"""Score an agent, or random play, on one game."""

from dataclasses import asdict
from pathlib import Path

from policy_distillation import openmp

openmp.prepare("play")  # before torch is loaded

from policy_distillation.checkpoints import load_agent
from policy_distillation.evaluate import Evaluation, episodes_frame, play_episodes, random_player
from policy_distillation.files import atomic_path, file_digest
from policy_distillation.hardware import job_device
from policy_distillation.joblog import logging_to
from policy_distillation.provenance import provenance
from policy_distillation.sidecar import write_sidecar
from policy_distillation.training import computed, prepare_process, select_device, select_precision, stream

ABOUT = ("kind", "digest", "seed", "network", "settings", "commit", "hardware", "begun_by", "data", "teacher_outputs")
with logging_to(snakemake.log[0]):
    prepare_process(snakemake.params.seed, snakemake.threads)
    device = select_device(job_device("cpu"))
    made_by = provenance()  # which starts CUDA, where a GPU is to be seen
    precision = select_precision(snakemake.config["machine"]["precision"], device)
    evaluation, game = Evaluation(**snakemake.params.evaluation), snakemake.wildcards.game
    if snakemake.input.agent:
        agent, metadata, epsilon = *load_agent(Path(snakemake.input.agent), device), evaluation.epsilon
    else:
        agent, metadata, epsilon = random_player(game, snakemake.params.protocol), {"kind": "random"}, 1.0
    teacher = load_agent(Path(snakemake.input.teacher), device)[0] if snakemake.input.teacher else None
    episodes = play_episodes(
        agent,
        game,
        snakemake.params.protocol,
        evaluation,
        stream(snakemake.params.seed, "evaluation"),
        precision,
        teacher,
        epsilon=epsilon,
    )
    frame = episodes_frame(episodes, protocol=snakemake.params.protocol, starts=evaluation.starts)
    print(frame[["return", "length"]].describe().to_string())
    if not frame["return"].any():
        print(f"WARNING: this agent never scored in {len(frame)} games of {game}")
    with atomic_path(Path(snakemake.output.csv)) as temporary:
        frame.to_csv(temporary, index=False)
    facts = {
        "kind": "scores",
        "game": game,
        "evaluation": asdict(evaluation) | {"epsilon": epsilon},
        "protocol": snakemake.params.protocol,
        "seed": snakemake.params.seed,
        "computed": computed(device, precision),  # on a CPU, scores do not depend on its threads
        "agent": {key: metadata.get(key) for key in ABOUT},
        "acting": agent.readouts[game].acting,
        "teacher": file_digest(Path(snakemake.input.teacher)) if snakemake.input.teacher else None,
    }
    write_sidecar(Path(snakemake.output.csv), facts, made_by)
