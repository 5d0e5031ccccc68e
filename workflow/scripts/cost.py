"""What the configuration means before it is launched: jobs, hours, disk and memory, from rates that were measured."""

import json
from pathlib import Path

import pandas as pd
from policy_distillation.cost import cost_table, plan
from policy_distillation.grid import Grid

lengths = {Path(scores).parent.name: pd.read_csv(scores)["length"].mean() for scores in snakemake.input.games}
text = cost_table(plan(Grid(snakemake.config), lengths), json.loads(Path(snakemake.input.rates).read_text()))
print(text)
Path(snakemake.log[0]).write_text(f"{text}\n")
