"""Seeds, generator state, progress files, devices and the orderly stop."""

import csv
import math
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from policy_distillation import training
from policy_distillation.checkpoints import RunState
from policy_distillation.optimizers import make_optimizer
from policy_distillation.training import (
    Interrupted,
    Progress,
    StopSignal,
    Stopwatch,
    generator_state,
    logging_to,
    prepare_process,
    restore_generator,
    select_device,
    select_precision,
    stream,
)

names = st.lists(st.one_of(st.text(max_size=12), st.integers(0, 10**6)), min_size=1, max_size=4)


def draws(seed: tuple[int, ...]) -> list[int]:
    return np.random.default_rng(seed).integers(0, 2**63, 4).tolist()


@given(st.integers(0, 2**31), names, names)
def test_streams_of_distinct_names_are_distinct(seed, one, other):
    same = [str(name) for name in one] == [str(name) for name in other]
    assert (stream(seed, *one) == stream(seed, *other)) == same
    assert stream(seed, *one) != stream(seed + 1, *one)


def test_streams_that_the_project_uses_draw_different_numbers():
    uses = [
        stream(seed, use, game, part)
        for seed in (0, 1, 2)
        for use in ("training", "dataset", "exploration", "progress")
        for game in ("pong", "breakout")
        for part in (0, 1, 10)
    ]
    assert len({tuple(draws(use)) for use in uses}) == len(uses)
    # The same names must give the same stream in another process, so nothing may depend on Python's salted hash().
    assert stream(3, "dataset", "pong", 1) == (3, 3080733136, 559432015, 2212294583)


@given(st.integers(0, 2**32), st.integers(0, 20))
def test_a_restored_generator_goes_on_where_the_other_was(seed, drawn):
    rng = np.random.default_rng(seed)
    rng.integers(0, 10, drawn, dtype=np.int32)  # an odd number of 32-bit draws leaves half a word buffered
    state = generator_state(rng)
    expected = rng.integers(0, 1000, 8, dtype=np.int32).tolist() + rng.random(3).tolist()
    other = np.random.default_rng(0)
    restore_generator(other, state)
    assert other.integers(0, 1000, 8, dtype=np.int32).tolist() + other.random(3).tolist() == expected


def test_generator_state_survives_a_checkpoint(tmp_path):
    rng = np.random.default_rng(5)
    rng.random(7)
    run = RunState(tmp_path / "state", {})
    run.save({"rng": generator_state(rng)})
    other = np.random.default_rng(0)
    restore_generator(other, run.load()["rng"])
    assert other.random() == rng.random()


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    now = [1000.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
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
    later = Progress(1000, "update", tmp_path / "progress.csv", kept, done=150)
    clock[0] += 12
    later.advance(50)
    later.record({"loss": 0.5})
    later.close()
    table = pd.read_csv(tmp_path / "progress.csv")
    assert table["update"].tolist() == [100, 200]
    assert table["seconds"].tolist() == [30, 42]
    assert table["loss"].tolist() == [1.0, 0.5]
    assert "resuming at update 150 of 1,000" in capsys.readouterr().out


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


def test_stopwatch_is_due_once_per_period(clock):
    watch = Stopwatch(60)
    due = []
    for _ in range(6):
        clock[0] += 25
        due.append(watch.due())
    assert due == [False, False, True, False, False, True]


def test_sigterm_becomes_a_flag_and_exit_code_143():
    before = signal.getsignal(signal.SIGTERM)
    try:
        stop = StopSignal()
        assert not stop.received
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received
    finally:
        signal.signal(signal.SIGTERM, before)
    assert Interrupted(143).code == 143  # 128 + 15, what a shell reports for SIGTERM


def test_auto_device_is_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert select_device("auto").type == "cuda"
    assert select_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert select_device("auto").type == "cpu"


@pytest.mark.parametrize(
    ("name", "device", "flags", "expected"),
    [
        ("auto", "cuda", "", "bfloat16"),
        ("auto", "cpu", "avx2 avx512_bf16", "bfloat16"),
        ("auto", "cpu", "amx_bf16", "bfloat16"),
        ("auto", "cpu", "avx2 avx512f", "float32"),
        ("float32", "cuda", "amx_bf16", "float32"),
        ("bfloat16", "cpu", "", "bfloat16"),
    ],
)
def test_precision(monkeypatch, name, device, flags, expected):
    monkeypatch.setattr(training, "_cpu_info", lambda: flags)
    assert select_precision(name, torch.device(device)) == expected


def test_rmsprop_is_the_papers_and_adam_has_its_epsilon():
    parameters = [torch.nn.Parameter(torch.zeros(2))]
    rmsprop = make_optimizer("rmsprop", parameters, 2.5e-4, 0.01)
    assert isinstance(rmsprop, torch.optim.RMSprop)
    group = rmsprop.param_groups[0]
    assert (group["lr"], group["alpha"], group["eps"], group["centered"], group["momentum"]) == (
        2.5e-4,
        0.95,
        0.01,
        True,
        0,
    )
    adam = make_optimizer("adam", parameters, 3e-4, 1e-5)
    assert isinstance(adam, torch.optim.Adam)
    assert (adam.param_groups[0]["lr"], adam.param_groups[0]["eps"]) == (3e-4, 1e-5)


def test_prepare_process_seeds_torch():
    threads = torch.get_num_threads()
    try:
        prepare_process(4, threads)
        one = torch.rand(3)
        prepare_process(4, threads)
        assert torch.equal(torch.rand(3), one)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_flush_denormal(False)


def test_a_jobs_log_gets_its_output_and_its_traceback(tmp_path, capsys):
    with logging_to(tmp_path / "logs" / "job.log"):
        print("fine")
    with pytest.raises(SystemExit) as stopped, logging_to(tmp_path / "logs" / "job.log"):
        raise ValueError("the one line")
    assert stopped.value.code == 1
    text = (tmp_path / "logs" / "job.log").read_text()
    assert text.startswith("fine\n")  # a rerun appends
    assert "Traceback" in text
    assert capsys.readouterr() == ("", "ValueError: the one line\n")
    with pytest.raises(SystemExit) as stopped, logging_to(tmp_path / "logs" / "job.log"):
        raise Interrupted(143)
    assert stopped.value.code == 143  # an orderly stop is no failure
