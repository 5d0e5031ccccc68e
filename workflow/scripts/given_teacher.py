"""Take over a teacher from a file, verified weight by weight."""

from pathlib import Path

from policy_distillation.checkpoints import load_agent
from policy_distillation.files import copy_file
from policy_distillation.joblog import logging_to

with logging_to(snakemake.log[0]):
    source = Path(snakemake.input[0])
    _, metadata = load_agent(source)
    print(f"{source}: {metadata.get('kind')} for {', '.join(metadata['actions'])}, score {metadata.get('score')}")
    copy_file(source, Path(snakemake.output[0]))
