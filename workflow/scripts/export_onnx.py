"""One game of an agent as ONNX, in float32 and in eight bits."""

from pathlib import Path

from policy_distillation.checkpoints import load_agent
from policy_distillation.exporting.int8 import players, quantise
from policy_distillation.exporting.onnx import export_onnx
from policy_distillation.joblog import logging_to
from policy_distillation.training import prepare_process

with logging_to(snakemake.log[0]):
    prepare_process(snakemake.params.seed, threads=1)
    agent, metadata = load_agent(snakemake.input.agent)
    whole, int8 = Path(snakemake.output.whole), Path(snakemake.output.int8)
    export_onnx(agent.single(snakemake.wildcards.game), metadata, whole)
    known = players(Path(snakemake.input.agent), metadata)
    print(quantise(whole, Path(snakemake.input.part), int8, known, snakemake.params.seed).describe())
