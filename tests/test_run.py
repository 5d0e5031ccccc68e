"""The scaffold of every long run, around an algorithm that only counts."""

import contextlib
import os
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from policy_distillation import run as module
from policy_distillation import state
from policy_distillation.joblog import logging_to
from policy_distillation.optimizers import make_optimizer
from policy_distillation.run import Machine, Run, Stopwatch, Turn
from policy_distillation.stopping import Stopped, StopSignal


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


def make(folder, total=10, seconds=1e9, tracker=None, **description):
    return Run(folder, "counter", description, total, "step", Machine("cpu", "float32", seconds, tracker))


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


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_a_tracker_is_told_of_every_row_and_changes_nothing(tmp_path, monkeypatch, tracker):
    plain = run(tmp_path / "plain", game="pong")
    calls = []
    told = SimpleNamespace(
        log=lambda values, step: calls.append((step, values)), finish=lambda: calls.append("finished")
    )
    package = SimpleNamespace(init=lambda **facts: calls.append(facts) or told)
    monkeypatch.setitem(sys.modules, tracker, package)
    assert run(tmp_path / "told", tracker=tracker, game="pong") == plain
    facts, *rows, last = calls
    assert (facts["project"], facts["name"]) == ("policy-distillation", str(tmp_path / "told"))
    assert facts["config"].items() >= {"game": "pong", "kind": "counter"}.items()
    assert last == "finished"
    curves = [pd.read_csv(tmp_path / name / "progress.csv") for name in ("plain", "told")]
    assert curves[0]["count"].tolist() == curves[1]["count"].tolist() == [3, 6, 9, 10]
    assert rows == [(row.pop("step"), row) for row in curves[1].to_dict("records")]


@pytest.mark.parametrize("call", ["init", "log", "finish"])
def test_a_tracker_that_fails_is_told_nothing_more_and_ends_no_run(tmp_path, monkeypatch, capsys, call):
    told = []

    def called(name):
        def answer(*arguments, **options):
            told.append(name)
            if name == call:
                raise ConnectionError("the network is down")
            return SimpleNamespace(log=called("log"), finish=called("finish"))

        return answer

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=called("init")))
    assert run(tmp_path / "told", tracker="wandb") == run(tmp_path / "plain")
    assert told == {"init": ["init"], "log": ["init", "log"], "finish": ["init", *["log"] * 4, "finish"]}[call]
    said = "wandb: told nothing more (ConnectionError: the network is down); progress.csv is"
    assert capsys.readouterr().out.count(said) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("stop_at", [1, 6, 10])
def test_a_signal_saves_and_the_next_run_goes_on(tmp_path, capsys, number, code, stop_at):
    whole = run(tmp_path / "whole")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped) as stopped:
        run(tmp_path / "stopped", stop_at, number)
    assert stopped.value.code == code
    del stopped  # its traceback holds the run, and with it the lock
    assert signal.getsignal(signal.SIGINT) is before
    (tmp_path / "stopped/progress.csv").unlink(missing_ok=True)  # as Snakemake does to outputs of a job that failed
    assert run(tmp_path / "stopped") == whole
    assert f"resuming at step {stop_at} of 10" in capsys.readouterr().out
    curves = [pd.read_csv(tmp_path / name / "progress.csv")["count"].tolist() for name in ("whole", "stopped")]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("when", ["before the agent is written", "while the state is removed"])
def test_a_signal_after_the_last_turn_undoes_nothing(tmp_path, monkeypatch, when):
    """A job that ends then, as one with nothing to save does, would lose what it has done since its last saving."""
    discard = state.discard
    if when == "while the state is removed":
        monkeypatch.setattr(state, "discard", lambda path: (os.kill(os.getpid(), signal.SIGTERM), discard(path)))
    with logging_to(tmp_path / "log"):
        handler = signal.getsignal(signal.SIGTERM)
        loop, parts = make(tmp_path), (Counter(), Tape(), np.random.default_rng(3))
        for _ in loop.turns(count(*parts)):
            pass
        if when == "before the agent is written":
            os.kill(os.getpid(), signal.SIGTERM)
        (tmp_path / "agent").write_text("written")
        loop.remove_state()
        assert signal.getsignal(signal.SIGTERM) is handler
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["agent", "log"]
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("asked_for", ["before", "in the first turn"])
@pytest.mark.parametrize("stop_at", [3, 10])
def test_a_signal_while_scoring_saves_and_the_turn_is_scored_again(tmp_path, stop_at, asked_for):
    """Games can last longer than the time between a signal and the kill that follows it.

    DQN and PQN are generators: their parts are asked for in their first turn, which comes after one to score again.
    """

    def go(folder, stop_at=None, seconds=1e9):
        loop, parts, asked = make(folder, seconds=seconds), (Counter(), Tape(), np.random.default_rng(3)), []

        def algorithm():
            if asked_for == "in the first turn":
                loop.restore(counter=parts[0], tape=parts[1])
            yield from count(*parts)

        def score(stop):
            asked.append(loop.done)
            if loop.done == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
                raise Stopped(stop.received)
            return {"score": -loop.done}

        loop.restore(rng=parts[2], **({"counter": parts[0], "tape": parts[1]} if asked_for == "before" else {}))
        snapshots = []
        for _ in loop.turns(algorithm()):
            if loop.passes(3):
                loop.score(score)
            snapshots += loop.shares_done(5)
        loop.remove_state()
        return parts[0].count, parts[1].text, asked, snapshots

    whole = go(tmp_path / "whole")
    with pytest.raises(Stopped) as stopped:
        go(tmp_path / "stopped", stop_at)
    assert stopped.value.code == 143
    del stopped
    with pytest.raises(Stopped) as stopped:  # and a second time
        go(tmp_path / "stopped", stop_at)
    del stopped
    text = go(tmp_path / "stopped", seconds=0)  # a checkpoint is due at once
    assert text[:2] == (whole[:2] if stop_at < 10 or asked_for == "before" else (0, ""))  # no turn was left to take
    assert text[2] == [unit for unit in whole[2] if unit >= stop_at]  # nothing is scored twice, nothing left out
    assert text[3] == [share for share in whole[3] if 2 * (share + 1) >= stop_at]
    curves = [pd.read_csv(tmp_path / name / "progress.csv").drop(columns="seconds") for name in ("whole", "stopped")]
    pd.testing.assert_frame_equal(*curves)


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
    with pytest.raises(Stopped):
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


def test_all_who_made_a_run_are_told_each_once(tmp_path, monkeypatch):
    """A run that is gone on from by other code, or on another machine, is not the last process's alone."""
    for stop_at, commit in ((2, "a"), (4, "a"), (6, "b"), (7, "a"), (None, "c")):
        monkeypatch.setattr(module, "provenance", lambda commit=commit: {"commit": commit, "hardware": {"cpu": "x"}})
        loop = make(tmp_path)
        parts = Counter(), Tape(), np.random.default_rng(3)
        loop.restore(counter=parts[0], tape=parts[1], rng=parts[2])
        if stop_at:
            with contextlib.suppress(Stopped):
                for _ in loop.turns(count(*parts)):
                    if loop.done == stop_at:
                        os.kill(os.getpid(), signal.SIGTERM)
            loop._state._lock.close()  # as a process that ends
    assert (loop.done, loop.resumed) == (7, True)
    assert loop.metadata["commit"] == "c"
    assert [each["commit"] for each in loop.metadata["begun_by"]] == ["b", "a"]
    assert all(each["computed"]["device"] == "cpu" for each in loop.metadata["begun_by"])


def test_metadata_says_what_and_with_what(tmp_path):
    loop = make(tmp_path, seed=3)
    assert (loop.metadata["kind"], loop.metadata["seed"]) == ("counter", 3)
    assert set(loop.metadata) >= {"commit", "software", "hardware"}
    assert loop.metadata["computed"] == {
        "device": "cpu",
        "precision": "float32",
        "threads": torch.get_num_threads(),
    }
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
