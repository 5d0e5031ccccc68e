"""The scaffold of every long run, around an algorithm that only counts."""

import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from policy_distillation import run as module
from policy_distillation.optimizers import make_optimizer
from policy_distillation.run import Interrupted, Machine, Run, StopSignal, Stopwatch, Turn


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


class Counter:
    """What a learner is to a run: something with a state."""

    def __init__(self):
        self.count = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


class Tape:
    """What a replay is to a run: a file of its own."""

    def __init__(self):
        self.text = ""

    def save(self, path):
        path.write_text(self.text)

    def load(self, path):
        self.text = path.read_text()


def make(folder, total=10, seconds=1e9, **description):
    return Run(folder, "counter", description, total, "step", Machine("cpu", "float32", seconds))


def count(counter, tape, rng, units=1, loss=0.5):
    while True:
        counter.count += units
        tape.text += f"{rng.integers(10)}"
        yield Turn(units, None if loss is None else torch.tensor(loss), lambda: {"count": counter.count})


def run(folder, stop_at=None, signal_number=signal.SIGTERM, **options):
    """A run of ten units, or one that a signal reaches at a unit; returns its parts."""
    loop = make(folder, **options)
    parts = Counter(), Tape(), np.random.default_rng(3)
    loop.restore(counter=parts[0], tape=parts[1], rng=parts[2])
    for turn in loop.turns(count(*parts)):
        if loop.passes(3):
            loop.record(turn.facts())
        if loop.done == stop_at:
            os.kill(os.getpid(), signal_number)
    loop.remove_state()
    return parts[0].count, parts[1].text


def test_a_run_goes_to_its_end_and_leaves_its_curve(tmp_path):
    assert run(tmp_path)[0] == 10
    assert pd.read_csv(tmp_path / "progress.csv")["count"].tolist() == [3, 6, 9, 10]
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("stop_at", [1, 6, 10])
def test_a_signal_saves_and_the_next_run_goes_on(tmp_path, capsys, number, code, stop_at):
    whole = run(tmp_path / "whole")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as stopped:
        run(tmp_path / "stopped", stop_at, number)
    assert stopped.value.code == code
    del stopped  # its traceback holds the run, and with it the lock
    assert signal.getsignal(signal.SIGINT) is before
    assert run(tmp_path / "stopped") == whole
    assert f"resuming at step {stop_at} of 10" in capsys.readouterr().out
    curves = [pd.read_csv(tmp_path / name / "progress.csv")["count"].tolist() for name in ("whole", "stopped")]
    assert curves[0] == curves[1]


def test_a_second_ctrl_c_stops_at_once():
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_run_that_learnt_nothing_fails(tmp_path):
    loop = make(tmp_path)
    with pytest.raises(ValueError, match="nothing was learnt in 10 steps, so no agent is written"):
        list(loop.turns(count(Counter(), Tape(), np.random.default_rng(0), loss=None)))


def test_what_was_learnt_before_an_interruption_counts(tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, 9)
    loop = make(tmp_path)
    assert len(list(loop.turns(count(Counter(), Tape(), np.random.default_rng(0), loss=None)))) == 1


@pytest.mark.parametrize("when", ["recorded", "saved"])
def test_a_loss_that_is_not_finite_is_neither_recorded_nor_saved(tmp_path, when):
    loop = make(tmp_path, seconds=1e9 if when == "recorded" else 0)
    algorithm = count(Counter(), Tape(), np.random.default_rng(0), loss=float("nan"))
    turns = loop.turns(algorithm)
    turn = next(turns)
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 1; the last checkpoint is kept"):
        next(turns) if when == "saved" else loop.record(turn.facts())
    assert not (tmp_path / "state" / "state.pt").exists()
    assert not (tmp_path / "progress.csv").exists()


def test_periods_and_shares(tmp_path):
    loop = make(tmp_path, total=100)
    passed, shares = [], []
    for _ in loop.turns(count(Counter(), Tape(), np.random.default_rng(0), units=7)):
        passed += [loop.done] if loop.passes(20) else []
        shares += loop.shares_done(4)
    assert passed == [21, 42, 63, 84, 105]  # the first turn after each period, and the end
    assert shares == [0, 1, 2, 3]


def test_states_are_saved_once_a_period(tmp_path, clock, monkeypatch):
    saves = []
    monkeypatch.setattr(Run, "_save", lambda self: saves.append(self.done))
    loop = make(tmp_path, seconds=60)
    for _ in loop.turns(count(Counter(), Tape(), np.random.default_rng(0))):
        clock[0] += 25
    assert saves == [3, 6, 9]


def test_a_saving_that_takes_long_is_done_less_often(clock):
    watch = Stopwatch(60)
    clock[0] += 60
    assert watch.due()
    clock[0] += 30
    watch.saved(30)  # a twentieth of the time at most
    clock[0] += 599
    assert not watch.due()
    clock[0] += 1
    assert watch.due()
    watch.saved(0.1)
    clock[0] += 60
    assert watch.due()


def test_metadata_says_what_and_with_what(tmp_path):
    loop = make(tmp_path, seed=3)
    assert (loop.metadata["kind"], loop.metadata["seed"]) == ("counter", 3)
    assert set(loop.metadata) >= {"commit", "software", "hardware"}
    assert (str(loop.device), loop.precision) == ("cpu", "float32")


def test_the_optimisers_own_flags_outlive_a_restoration(tmp_path):
    """A state from a GPU says `capturable`, which a CPU's optimiser refuses."""
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)

    def optimizer():
        return make_optimizer("rmsprop", [parameter], 0.1, 0.01)

    one = optimizer()
    one.step()
    loop = make(tmp_path)
    loop.restore(optimizer=one)
    loop._save()
    loop._state._lock.close()
    again = make(tmp_path)
    again._saved["parts"]["optimizer"]["param_groups"][0]["capturable"] = True
    other = optimizer()
    again.restore(optimizer=other)
    assert other.param_groups[0]["capturable"] is False
    other.step()
    torch.testing.assert_close(other.state[parameter]["square_avg"].mean().item(), 0.05 + 0.95 * 0.05)
