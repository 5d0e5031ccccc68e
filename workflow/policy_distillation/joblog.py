"""What every job needs: a log, and an orderly stop. Without torch, whose import takes longer than drawing a figure."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from .stopping import Stopped, stop_at_once, visible


@contextlib.contextmanager
def logging_to(path: str | Path) -> Iterator[None]:
    """Send what a job prints, tracebacks included, to its log; on a terminal the progress bar stays visible.

    At SIGTERM and SIGINT the job ends at once, in an orderly way, and says so; a training run has a way of its own.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    before = {number: signal.signal(number, stop_at_once) for number in (signal.SIGTERM, signal.SIGINT)}
    with open(path, "a", buffering=1, encoding="utf-8") as log, contextlib.redirect_stdout(log):
        try:
            if "SLURM_JOB_ID" in os.environ:
                gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
                print(f"Slurm job {os.environ['SLURM_JOB_ID']} on {platform.node()}, CUDA_VISIBLE_DEVICES={gpus}")
            yield
        except Stopped as stopped:
            for file in (sys.stderr, log):
                print(f"{stopped.signal}: stopped before the end; what was saved of the run is kept", file=file)
            raise
        except Exception as error:
            print(f"{type(error).__name__}: {visible(str(error))}", file=sys.stderr)
            with contextlib.suppress(OSError):  # the disk may be full
                traceback.print_exc(file=log)
            raise SystemExit(1) from None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
