# Policy Distillation (Rusu et al., ICLR 2016). Reads like the paper: teachers, data sets, students, evaluation, results.
#
#   snakemake results/table_single_task.csv          one table and what it needs
#   snakemake all                                    everything that config.yaml declares
#   snakemake --profile profiles/demo all            Pong on a laptop; results below results/demo
#   snakemake --profile slurm all                    on a cluster
from snakemake.utils import min_version

min_version("9.20")  # pathvars


configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/teachers.smk"
include: "workflow/rules/datasets.smk"
include: "workflow/rules/students.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/results.smk"


# Snakemake's own lock outlives a killed process and asks for --unlock; this one does not (profiles/default: nolock).
onstart:
    if workflow.is_main_process:
        workflow.results_lock = hold_lock(Path(config["results"]) / ".lock")
        for game in GIVEN_GAMES and USED_GAMES:
            check_actions(game, teacher(game)["source"], config["protocol"])


rule all:
    default_target: True
    input:
        results_of(config["experiments"]),


rule paper:
    input:
        results_of(name for name, entry in config["experiments"].items() if entry.get("paper")),
