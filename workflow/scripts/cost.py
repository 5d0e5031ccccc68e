"""What the configuration means before it is launched: jobs, hours, disk and memory, from rates that were measured."""

import json
from pathlib import Path

import pandas as pd

params = snakemake.params
results = json.loads(Path(snakemake.input.rates).read_text())
rates, machine = results["rates"], results["machine"]
length = pd.concat(map(pd.read_csv, snakemake.input.games))["length"].mean()
rows = []
for entry in params.plan:
    # Evaluation plays games; every other rule says how many steps or samples it handles.
    units = entry["units"] * (length if entry["rate"] == "evaluate" else 1)
    rate = rates[entry["rate"]] * params.samples_per_update.get(entry["rate"], 1)
    rows.append({**entry, "units": units, "hours": units / rate / 3600})
table = pd.DataFrame(rows).drop(columns="rate").groupby("rule", sort=False)
table = table.agg({"jobs": "sum", "units": "sum", "gpu": "max", "hours": "sum", "disk_gb": "sum", "memory_gb": "max"})
total = table[["jobs", "hours", "disk_gb"]].sum()
on_gpu = table.loc[table["gpu"] == 1, "hours"].sum()
text = (
    table.drop(columns="gpu").to_string(float_format=lambda value: f"{value:,.1f}") + "\n\n"
    f"{total['jobs']:,.0f} jobs, {total['hours']:,.0f} hours, {on_gpu:,.0f} of them in jobs that ask for a GPU; "
    f"{total['disk_gb']:,.1f} GB on disk; at most {table['memory_gb'].max():,.1f} GB of memory for one job.\n"
    f"Rates: {snakemake.input.rates}, measured on {machine['cpu']}, {machine['threads']} threads, "
    f"GPU: {machine['gpu'] or 'none, so hours on a GPU are not known but fewer'}.\n"
    f"Games are taken to last {length:,.0f} steps, the mean of those that the reference teachers played."
)
print(text)
Path(snakemake.log[0]).write_text(text)
