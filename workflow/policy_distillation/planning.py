"""Planning ten thousand jobs faster: Snakemake 9.27 works out again, for every job, what it knows already."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Collection
from typing import Any

import snakemake


def plan_faster(quiet: Collection[Any] | None) -> None:
    """Let Snakemake remember it. Other versions than 9.27 are left as they are.

    Args:
        quiet: what this run of Snakemake does not print (`workflow.output_settings.quiet`).
    """
    gc.set_threshold(3_000_000)  # millions of objects, of which hardly any is garbage
    if not snakemake.__version__.startswith("9.27."):
        return

    import smart_open
    from snakemake import common, dag, io, rules
    from snakemake.executors import dryrun
    from snakemake.settings.types import Quietness

    # Of a rule: that its script is there.
    dag.ScriptProcessor.process_job = once_a_rule(dag.ScriptProcessor.process_job)
    # How a script's path is read; which arguments an input function or a resource takes; what may carry flags.
    smart_open.parse_uri = functools.cache(smart_open.parse_uri)
    common.get_function_params = rules.get_function_params = functools.cache(common.get_function_params)
    io.AnnotatedStringInterface = (io._IOFile, io.AnnotatedString)
    # What a dry run says of each job, when it is not to be printed.
    if {Quietness.RULES, Quietness.ALL} & set(quiet or ()):
        dryrun.Executor.printjob = lambda self, job: None


def once_a_rule(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose last argument is a job; for a rule's later jobs, what it returned for the first."""
    known: dict[Any, Any] = {}

    def remembered(*arguments: Any) -> Any:
        rule = arguments[-1].rule
        if rule not in known:
            known[rule] = function(*arguments)
        return known[rule]

    return remembered
