"""An experiment's agents in torch, ONNX and int8: one table."""

from pathlib import Path

from policy_distillation.exporting.deployment import markdown, read_csv, write_csv
from policy_distillation.files import atomic_path, file_digest
from policy_distillation.joblog import logging_to
from policy_distillation.sidecar import write_sidecar

with logging_to(snakemake.log[0]):
    rows = [row for path in snakemake.input for row in read_csv(Path(path))]
    output = Path(snakemake.output.csv)
    write_csv(rows, output)
    write_sidecar(output, {"kind": "exports", "inputs": {path: file_digest(Path(path)) for path in snakemake.input}})
    with atomic_path(Path(snakemake.output.md)) as temporary:
        temporary.write_text(markdown(rows), encoding="utf-8")
