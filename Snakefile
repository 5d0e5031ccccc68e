# Policy Distillation (Rusu et al., ICLR 2016). Reads like the paper: teachers, data sets, students, evaluation, results.
#
#   snakemake results/table_single_task.csv          one table and what it needs
#   snakemake all                                    everything that config.yaml declares
#   snakemake --profile profiles/demo all            Pong on a laptop; results below results/demo
#   snakemake --profile slurm all                    on a cluster
#
# config.yaml is the paper's protocol; your own changes go into config.local.yaml or behind --configfile.
from snakemake.utils import min_version

min_version("9.20")  # pathvars


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/teachers.smk"
include: "workflow/rules/datasets.smk"
include: "workflow/rules/students.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/results.smk"
include: "workflow/rules/videos.smk"
include: "workflow/rules/page.smk"
include: "workflow/rules/reference_students.smk"
include: "workflow/rules/exports.smk"


# Snakemake's own lock outlives a killed process and asks for --unlock; this one does not (profiles/default: nolock).
# What a killed process left in Slurm's queue is stopped, and then everything is planned anew: it may just have finished.
onstart:
    # What a configuration costs may be asked while a run goes on.
    if workflow.is_main_process and {*workflow.dag_settings.targets} != {"cost"}:
        results = Path(config["results"])
        workflow.results_lock = hold_lock(results / ".lock")
        executor = workflow.scheduler._executor
        if workflow.executor_plugin.name == "slurm":
            executor.run_uuid = f"{job_prefix(results)}_{executor.run_uuid}"  # the jobs' name
            if orphans := stop_orphans(job_prefix(results)):
                print(
                    f"stopped jobs that an earlier run had left behind: {' '.join(orphans)}",
                    file=sys.stderr,
                    flush=True,
                )
                os.execv(sys.executable, sys.orig_argv)
            forget_no_job(executor)
        for game in grid.games:
            check_actions(game, grid.teacher(game)["source"], config["protocol"])


rule all:
    default_target: True
    input:
        results_of(grid, config["experiments"]),
        "<results>/index.html",


rule paper:
    input:
        results_of(grid, [name for name, entry in config["experiments"].items() if entry.get("paper")]),
