"""What the configuration means before it is launched: jobs, hours, disk and memory, from rates that were measured."""

import json
from pathlib import Path

import pandas as pd
from policy_distillation.cost import cost_table, plan
from policy_distillation.grid import Grid

steps = pd.concat(map(pd.read_csv, snakemake.input.games))["length"].mean()
text = cost_table(plan(Grid(snakemake.config)), json.loads(Path(snakemake.input.rates).read_text()), steps)
print(text)
Path(snakemake.log[0]).write_text(f"{text}\n")
