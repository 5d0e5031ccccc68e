"""Learning curves on disk and on the screen, also of runs that go on."""

import csv
import errno
import math
from pathlib import Path

import pandas as pd
import pytest
from policy_distillation import progress as module
from policy_distillation.progress import Progress
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_progress_writes_each_row_at_once(tmp_path, clock, capsys):
    progress = Progress(1000, "step", tmp_path / "progress.csv", [])
    for loss in (0.5, 0.25):
        clock[0] += 10
        progress.advance(100)
        progress.record({"loss": loss, "return_pong": float("nan")})
        assert len(read_rows(tmp_path / "progress.csv")) == len(progress.rows)  # a killed run keeps its curve
    progress.close()
    table = pd.read_csv(tmp_path / "progress.csv")
    assert list(table.columns) == ["step", "seconds", "loss", "return_pong"]
    assert table["step"].tolist() == [100, 200]
    assert table["seconds"].tolist() == [10, 20]
    assert table["loss"].tolist() == [0.5, 0.25]
    assert math.isnan(table["return_pong"][0])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2  # plain lines where there is no terminal
    assert "200 of 1,000" in lines[1]
    assert "loss 0.25" in lines[1]
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_resumed_progress_continues_rows_and_seconds(tmp_path, clock, capsys):
    earlier = Progress(1000, "update", tmp_path / "progress.csv", [])
    clock[0] += 30
    earlier.advance(100)
    earlier.record({"loss": 1.0})
    kept = list(earlier.rows)
    earlier.advance(100)
    earlier.record({"loss": 7.0})  # after the checkpoint: the resumed run does this part again
    earlier.close()

    clock[0] += 5000  # in the queue
    (tmp_path / "progress.csv").unlink()  # as Snakemake does to outputs of a job that failed
    later = Progress(1000, "update", tmp_path / "progress.csv", kept, done=150, seconds=35.0)
    assert pd.read_csv(tmp_path / "progress.csv")["update"].tolist() == [100]
    clock[0] += 12
    later.advance(50)
    later.record({"loss": 0.5})
    later.close()
    table = pd.read_csv(tmp_path / "progress.csv")
    assert table["update"].tolist() == [100, 200]
    assert table["seconds"].tolist() == [30, 47]
    assert table["loss"].tolist() == [1.0, 0.5]
    assert "resuming at update 150 of 1,000" in capsys.readouterr().out


def test_tensorboard_keeps_the_row_of_the_step_that_the_state_holds(tmp_path):
    """And forgets those after it, which the resumed run makes anew."""
    csv = tmp_path / "progress.csv"
    earlier = Progress(100, "update", csv, [])
    for loss in (1.0, 2.0, 9.0):
        earlier.advance(30)
        earlier.record({"loss": loss})
    earlier.close()
    later = Progress(100, "update", csv, earlier.rows[:2], done=60)
    later.advance(40)
    later.record({"loss": 3.0})
    later.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(30, 1.0), (60, 2.0), (100, 3.0)]


def test_what_tensorboard_cannot_write_undoes_nothing(tmp_path, monkeypatch, capsys):
    progress = Progress(10, "step", tmp_path / "progress.csv", [])
    progress.record({"loss": 1.0})

    def full_disk():
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(progress._board, "close", full_disk)
    progress.close()
    said = f"{tmp_path / 'tensorboard'}: not whole (No space left on device); progress.csv is"
    assert said in capsys.readouterr().out


def test_progress_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    progress = Progress(10, "step", tmp_path / "progress.csv", [])
    progress.record({"loss": 1.0})
    before = (tmp_path / "progress.csv").read_bytes()

    def fail_halfway(self, path, **options):
        Path(path).write_text("step,sec")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail_halfway)
    with pytest.raises(OSError, match="disk full"):
        progress.record({"loss": 2.0})
    progress.close()
    assert (tmp_path / "progress.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["progress.csv", "tensorboard"]
