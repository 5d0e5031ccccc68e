"""Jobs that play, asked to end by a signal: at once, in an orderly way, and with a line in the log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from policy_distillation.stopping import told_in_a_line, visible

# Games of many minutes; each begins with a line, so that the signal comes in the middle of it.
START = """
import sys
from pathlib import Path
import torch
from policy_distillation import acting, atari
from policy_distillation.checkpoints import save_agent
from policy_distillation.evaluate import Evaluation, play_episodes
from policy_distillation.networks import Agent, Network
from policy_distillation.recording import Dataset, dump_part
from policy_distillation.joblog import logging_to

folder = Path(sys.argv[1])
torch.set_num_threads(2)
agent = Agent(Network((4, 4, 4), 16), {"freeway": [0, 2, 5]})
save_agent(folder / "agent.safetensors", agent, {"protocol": {"name": "paper2015"}})
step = atari.AtariVector.step


def said(self, actions):
    print("playing", file=sys.__stdout__, flush=True)
    return step(self, actions)


atari.AtariVector.step = said
with logging_to(folder / "job.log"):
"""
PROGRAMS = {
    "evaluation": """
    play_episodes(agent, "freeway", "paper2015", Evaluation(3200, 16, 0.05), 0)
""",
    "recording": """
    settings = Dataset(1, 1_000_000, 4, 0.05)
    dump_part(folder / "agent.safetensors", "freeway", "paper2015", 0, settings, 0, folder / "part0.h5")
""",
}


def test_a_message_that_quotes_a_foreign_file_does_nothing_to_the_terminal() -> None:
    assert visible("a tensor \x1b]0;owned\x07\x1b[2J é\r\x9b\n\tnext") == (
        r"a tensor \x1b]0;owned\x07\x1b[2J é\r\x9b" + "\n\tnext"
    )
    with pytest.raises(SystemExit, match=r"^error: \\x1b\[2J$"), told_in_a_line():
        raise ValueError("\x1b[2J")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_job_ends_when_it_is_asked_to(program: str, number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", START + PROGRAMS[program], str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "playing\n"
            process.send_signal(number)
            _, errors = process.communicate(timeout=300)
        finally:
            process.kill()
    line = f"{number.name}: stopped before the end; what was saved of the run is kept\n"
    assert process.returncode == 128 + number
    assert errors == line
    assert (tmp_path / "job.log").read_text().endswith(line)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent.safetensors", "job.log"]  # nothing half made
