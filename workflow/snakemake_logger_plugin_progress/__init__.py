"""A line for each finished job instead of Snakemake's own report: jobs done, time taken, minutes left.

    PYTHONPATH=workflow snakemake --logger progress --profile profiles/demo all

In a dry run, -n, one line says how many jobs of which rules would run. What goes wrong is reported in full; the rest
is in .snakemake/log, as always.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

QUICK = 15.0
"""Seconds: a job of a rule that has not run yet is taken to last as long as the others, or this before there is any."""


class Timetable:
    """Which jobs there are, run and have run, by rule, and how long a rule's jobs take."""

    def __init__(self, jobs: Counter[str]) -> None:
        self.jobs = jobs
        self.done = Counter[str]()
        self.seconds = Counter[str]()
        self.running: dict[int, tuple[str, float]] = {}
        """By job: its rule, and when it started."""

    def start(self, job: int, rule: str, now: float) -> None:
        self.running[job] = rule, now

    def finish(self, job: int, now: float) -> None:
        rule, start = self.running.pop(job)
        self.done[rule] += 1
        self.seconds[rule] += now - start

    def seconds_left(self, now: float, at_once: int) -> float:
        """Of the jobs to come and what is left of those that run, ``at_once`` at a time."""
        finished = self.done.total()
        usual = self.seconds.total() / finished if finished else QUICK
        each = {rule: self.seconds[rule] / self.done[rule] if self.done[rule] else usual for rule in self.jobs}
        to_come = self.jobs - self.done - Counter(rule for rule, _ in self.running.values())
        waiting = sum(count * each[rule] for rule, count in to_come.items())
        begun = [max(0.0, each.get(rule, usual) - (now - start)) for rule, start in self.running.values()]
        return max((waiting + sum(begun)) / max(1, at_once), max(begun, default=0.0))


class LogHandler(LogHandlerBase):
    """Snakemake's logger plugin of the name ``progress``."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = False
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self._start = time.monotonic()
        self._names: dict[int, str] = {}
        self._timetable = Timetable(Counter())
        self._at_once = 1

    def emit(self, record: logging.LogRecord) -> None:
        event, facts, now = getattr(record, "event", None), record.__dict__, time.monotonic()
        if event == LogEvent.RUN_INFO:
            stats = facts["stats"]
            jobs = Counter({rule: n for rule, n in stats.items() if rule != "total"})
            if self.common_settings.dryrun and jobs != self._timetable.jobs:  # it is told twice
                rules = ", ".join(f"{rule} {n}" for rule, n in jobs.most_common())
                self._print(f"{jobs.total()} jobs would run: {rules}")
            self._timetable = Timetable(jobs)
        elif event == LogEvent.JOB_INFO:
            job = facts["jobid"]
            # Started where its announcement is heard: `Execute jobs` comes before it and has no names.
            self._timetable.start(job, facts["rule_name"], now)
            self._names[job] = " ".join([facts["rule_name"], "/".join(map(str, dict(facts["wildcards"]).values()))])
            self._at_once = max(self._at_once, len(self._timetable.running))
        elif event == LogEvent.JOB_FINISHED:
            self._timetable.finish(facts["job_id"], now)
            self._print(self._line(facts["job_id"], now))
        elif event == LogEvent.JOB_ERROR:  # a retry is announced anew
            self._timetable.running.pop(facts["jobid"], None)
            self._print(self.format(record))
        elif record.levelno >= logging.WARNING or (record.msg or "").startswith("Nothing to be done"):
            self._print(self.format(record))

    def _line(self, job: int, now: float) -> str:
        table = self._timetable
        minutes = table.seconds_left(now, self._at_once) / 60
        left = f"about {minutes:.0f} min left" if minutes >= 1 else "less than a minute left"
        done, total = table.done.total(), table.jobs.total()
        taken = f"{(now - self._start) / 60:.1f} min"
        return f"{done:>3} of {total} jobs, {taken}, {left if done < total else 'done'}: {self._names[job]}"

    @staticmethod
    def _print(text: str) -> None:
        print(text, file=sys.stderr, flush=True)
