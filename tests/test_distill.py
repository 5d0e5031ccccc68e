"""Distillation: students learn, the window slides, and a stopped run ends with the bits of one that never stopped."""

import copy
import gc
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import load_example
from policy_distillation import distill as algorithm
from policy_distillation import evaluate, optimizers, progress
from policy_distillation import hours as hours_module
from policy_distillation import run as run_module
from policy_distillation import students as module
from policy_distillation.atari import Episode
from policy_distillation.capture import WARM_UP
from policy_distillation.checkpoints import load_agent, save_agent
from policy_distillation.dataset_format import CHUNK, DatasetError, seal
from policy_distillation.distill import Recipe, Student
from policy_distillation.evaluate import Evaluation
from policy_distillation.header import read_metadata
from policy_distillation.networks import Agent, Network
from policy_distillation.optimizers import scale_learning_rates, schedule_factor
from policy_distillation.parts import Part
from policy_distillation.play import Play
from policy_distillation.protocols import PROTOCOLS
from policy_distillation.recording import Dataset, dump_part, record
from policy_distillation.run import Machine
from policy_distillation.sliding_window import Window
from policy_distillation.training import seed_weights
from torch.nn import functional as F

torch.set_num_threads(1)  # tiny networks; beside another job, OpenMP's spinning threads cost ten times the work

TINY = Network((4, 4, 4), 16)
SHORT = replace(PROTOCOLS["paper2015"], name="short", max_episode_frames=160)  # 40 steps a game
EVALUATION = Evaluation(episodes=1, envs=1, epsilon=0.05)
HOURS, TIMES, SLOTS = 3, 96, 2  # of each part
RECIPE = Recipe(
    loss="kl",
    temperature=0.01,
    optimizer="adam",
    learning_rate=1e-3,
    optimizer_epsilon=1e-8,
    schedule="cosine",
    batch_size=8,
    input_scaling="standardised",
    window_hours=2,
    updates_per_hour=5,
    evaluations=3,
)


@pytest.fixture(autouse=True)
def isolated(monkeypatch):
    """Short games."""
    monkeypatch.setitem(PROTOCOLS, "short", SHORT)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A part that a real teacher dumped, for the others to be made from."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    save_agent(folder / "agent.safetensors", Agent(TINY, {"breakout": [0, 1, 3, 4]}), {"protocol": asdict(SHORT)})
    play = Dataset(hours_per_part=HOURS, steps_per_hour=TIMES * SLOTS // HOURS, envs=SLOTS, epsilon=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROTOCOLS, "short", SHORT)
        dump_part(folder / "agent.safetensors", "breakout", "short", 0, play, 0, folder / "part.h5", "cpu")
    return folder / "part.h5"


@pytest.fixture
def make(base, tmp_path):
    """Writes a part in which the best action is the quadrant that is lit."""

    def write(name, seed=0, game="breakout", action_ids=(0, 1, 3, 4), light=150, q_values=None, **attributes):
        rng = np.random.default_rng(seed)
        best = rng.integers(0, len(action_ids), (TIMES // 8, SLOTS)).repeat(8, axis=0)
        frames = rng.integers(0, 50, (TIMES, SLOTS, 84, 84), np.uint8)
        for action, (top, left) in enumerate([(0, 0), (0, 42), (42, 0), (42, 42)]):
            frames[best == action, top : top + 42, left : left + 42] += np.uint8(light)
        if q_values is None:
            q_values = np.eye(len(action_ids))[best] + 0.01 * rng.standard_normal((TIMES, SLOTS, len(action_ids)))
        path = tmp_path / f"{name}.h5"
        shutil.copy(base, path)
        with h5py.File(path, "r+") as file:
            del file["frames"], file["q_values"]
            file.create_dataset("frames", data=frames, chunks=(CHUNK, 1, 84, 84))
            file["q_values"] = q_values.astype(np.float32)
            file.attrs.update({"game": game, "action_ids": list(action_ids), **attributes})
        seal(path)
        return path

    return write


def weight_score(agent, game, *arguments, **options):
    """In place of play: costs nothing and tells agents apart."""
    return [Episode(0, 0, 0, sum(float(p.detach().abs().sum()) for p in agent.parameters()), 1, False)]


@pytest.fixture
def no_play(monkeypatch):
    monkeypatch.setattr(evaluate, "play_episodes", weight_score)


@pytest.fixture
def live(monkeypatch):
    """Students as they were when their training ended, before they are saved."""
    agents = []

    def keep(path, agent, metadata):
        agents.append(copy.deepcopy(agent))
        save_agent(path, agent, metadata)

    monkeypatch.setattr(module, "save_agent", keep)
    return agents


@pytest.fixture
def windows(monkeypatch):
    """The windows that a run makes; each keeps the (part, hour) pushed and the q_values sampled."""
    made = []

    class Noted(Window):
        log = ()  # of all windows, in order: ("push", window, part's name, hour), ("sample", window, q_values)

        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

        def push(self, part, hour):
            Noted.log = (*Noted.log, ("push", made.index(self), part.path.stem, hour))
            super().push(part, hour)

        def sample(self, *arguments):
            observations, q_values = super().sample(*arguments)
            Noted.log = (*Noted.log, ("sample", made.index(self), q_values))
            return observations, q_values

    monkeypatch.setattr(module, "Window", Noted)
    return Noted


def run(parts, folder, recipe=RECIPE, seed=1, network=TINY, checkpoint_seconds=1e9, device="cpu", teachers=()):
    machine = Machine(device, "float32", checkpoint_seconds)
    module.distill_student(parts, dict(teachers), network, recipe, EVALUATION, seed, folder, machine)
    return folder / "agent.safetensors"


def tensors(path):
    return load_agent(path)[0].state_dict()


def same_tensors(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def curve(folder):
    return pd.read_csv(folder / "progress.csv").drop(columns="seconds")


def agreement(agent, path, game="breakout"):
    with Part(path) as part:
        times, slots = np.divmod(np.arange(part.times * part.slots), part.slots)
        best = part.read("q_values", 0, part.times).argmax(-1)[times, slots]
        return (agent.q_values(part.observations(times, slots), game).argmax(1) == best).mean()


# Learning


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["mse", "nll", "kl", "advantages"])
def test_students_learn_with_each_loss(make, tmp_path, loss):
    recipe = replace(RECIPE, loss=loss, batch_size=32, updates_per_hour=70, learning_rate=3e-3)
    agent_path = run({"breakout": [make("train")]}, tmp_path / loss, recipe, network=Network((8, 8, 8), 32))
    agent, metadata = load_agent(agent_path)
    assert agreement(agent, make("test", seed=9)) > 0.8  # four actions, equally often the best
    table = curve(tmp_path / loss)
    assert table["update"].tolist() == [70, 140, 210]
    assert table["loss"].iloc[-1] < table["loss"].iloc[0] / 2
    assert table["agreement"].iloc[-1] > max(0.8, table["agreement"].iloc[0])
    assert np.isfinite(table["return_breakout"]).all()  # on the real emulator
    assert (metadata["kind"], metadata["updates"], metadata["seed"]) == ("student", 210, 1)
    assert metadata["protocol"] == asdict(SHORT)
    assert sorted(path.name for path in (tmp_path / loss).iterdir()) == [
        "agent.safetensors",
        "progress.csv",
        "tensorboard",
    ]


def test_updates_equal_a_naive_reference(make, tmp_path, windows, monkeypatch, no_play):
    """Losses, RMSProp, schedule and scaling against formulas written out, on the batches that were drawn."""
    batches = []
    sample = windows.sample

    def noted(self, *arguments):
        batches.append(sample(self, *arguments))
        return batches[-1]

    monkeypatch.setattr(windows, "sample", noted)
    recipe = replace(RECIPE, optimizer="rmsprop", optimizer_epsilon=0.01, temperature=0.3, input_scaling="unit")
    mine = tensors(run({"breakout": [make("train")]}, tmp_path / "run", recipe))
    seed_weights(1, "student")
    naive = Agent(TINY, {"breakout": [0, 1, 3, 4]})
    averages = [(torch.zeros_like(p), torch.zeros_like(p)) for p in naive.parameters()]
    losses = []
    for update, (observations, q_values) in enumerate(batches):
        p = torch.softmax(q_values / 0.3, 1)
        q = torch.softmax(naive(observations, "breakout"), 1)
        loss = (p * (p / q).log()).sum(1).mean()
        losses.append(loss.item())
        rate = 1e-3 * 0.5 * (1 + math.cos(math.pi * update / 15))
        for parameter, gradient, (m, v) in zip(
            naive.parameters(), torch.autograd.grad(loss, list(naive.parameters())), averages, strict=True
        ):
            m.mul_(0.95).add_(0.05 * gradient)
            v.mul_(0.95).add_(0.05 * gradient**2)
            parameter.data -= rate * gradient / ((v - m**2).sqrt() + 0.01)
    assert len(batches) == 15
    for name, tensor in naive.state_dict().items():
        torch.testing.assert_close(mine[name], tensor, rtol=1e-3, atol=1e-5)
    table = curve(tmp_path / "run")
    expected = [np.mean(losses[start : start + 5]) for start in (0, 5, 10)]  # each row: since the last one
    assert table["loss"].tolist() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_updates_follow_the_schedule(make, tmp_path, monkeypatch, no_play, schedule):
    rates = []

    def noted(*arguments):
        optimizer = optimizers.make_optimizer(*arguments)
        optimizer.register_step_post_hook(lambda *_: rates.append([group["lr"] for group in optimizer.param_groups]))
        return optimizer

    monkeypatch.setattr(algorithm, "make_optimizer", noted)
    recipe = replace(RECIPE, schedule=schedule, optimizer="muon", filters_learning_rate=0.01)
    run({"breakout": [make("train")]}, tmp_path / "run", recipe)
    factors = np.array([schedule_factor(update, 15, schedule) for update in range(15)])
    np.testing.assert_allclose(rates, np.outer(factors, [0.01, 1e-3]))


def test_a_loss_that_is_not_finite_stops_the_run(make, tmp_path, no_play):
    recipe = replace(RECIPE, learning_rate=1e38)
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) at update 5"):
        run({"breakout": [make("train")]}, tmp_path / "run", recipe)
    assert not (tmp_path / "run" / "agent.safetensors").exists()


def test_equal_seeds_give_equal_bits(make, tmp_path, no_play):
    parts = {"breakout": [make("train")]}
    one = tensors(run(parts, tmp_path / "one"))
    torch.rand(5)
    np.random.rand(5)  # noqa: NPY002 - nothing may depend on global generators
    assert same_tensors(one, tensors(run(parts, tmp_path / "again")))
    pd.testing.assert_frame_equal(curve(tmp_path / "one"), curve(tmp_path / "again"))
    assert not same_tensors(one, tensors(run(parts, tmp_path / "other", seed=2)))
    assert not same_tensors(one, tensors(run(parts, tmp_path / "soft", replace(RECIPE, temperature=1.0))))


def test_a_student_does_not_begin_with_its_teachers_weights(make, tmp_path, live, no_play):
    """A teacher of the same seed and network drew its first weights from another stream."""
    run({"breakout": [make("train")]}, tmp_path / "run", replace(RECIPE, learning_rate=1e-30, input_scaling="unit"))
    torch.manual_seed(1)
    teacher = Agent(TINY, {"breakout": [0, 1, 3, 4]})
    assert not torch.allclose(live[0].conv1.weight, teacher.conv1.weight)
    assert live[0].conv1.weight.std().item() == pytest.approx(teacher.conv1.weight.std().item(), rel=0.2)


# The sliding window


def tagged(make, name, first_hour):
    """A part whose first q_value is the number of the hour, counted over all parts."""
    q_values = np.zeros((TIMES, SLOTS, 4))
    q_values[..., 0] = first_hour + np.arange(TIMES)[:, None] // (TIMES // HOURS)
    return make(name, seed=first_hour, q_values=q_values)


@pytest.mark.slow
@pytest.mark.parametrize("window_hours", [1, 2, 4, 10])
def test_hours_enter_in_order_and_the_oldest_leave(make, tmp_path, monkeypatch, windows, no_play, window_hours):
    opened = []

    class Counted(Part):
        def __init__(self, path):
            super().__init__(path)
            opened.append(path.stem)
            assert len(opened) <= 1  # parts stream through, one at a time

        def close(self):
            super().close()
            opened.remove(self.path.stem)

    monkeypatch.setattr(hours_module, "Part", Counted)
    parts = [tagged(make, "part0", 0), tagged(make, "part1", 3)]
    recipe = replace(RECIPE, window_hours=window_hours, updates_per_hour=8, batch_size=16)
    agent_path = run({"breakout": parts}, tmp_path / "run", recipe)
    seen, newest, updates = [set() for _ in range(6)], -1, [0] * 6
    for kind, _, *what in windows.log:
        if kind == "push":
            newest += 1
            assert what == [f"part{newest // 3}", newest % 3]
        else:
            seen[newest] |= set(what[0][:, 0].int().tolist())
            updates[newest] += 1
    assert updates == [8] * 6
    # 128 draws an hour: all hours in the window are met, and none outside it.
    assert seen == [set(range(max(0, hour - window_hours + 1), hour + 1)) for hour in range(6)]
    assert load_agent(agent_path)[1]["updates"] == 48
    assert opened == []


def test_no_more_than_the_window_is_held_in_memory(make, tmp_path, monkeypatch, no_play):
    held = []
    push = Window.push

    def measured(self, part, hour):
        push(self, part, hour)
        held.append(self.frames.numel())

    monkeypatch.setattr(Window, "push", measured)
    run({"breakout": [make("part0"), make("part1", seed=1)]}, tmp_path / "run")
    rows = TIMES // HOURS + 3  # an hour and the three frames before it
    assert held == [2 * rows * SLOTS * 84 * 84] * 6


# Input scaling


def test_standardised_inputs_fold_into_the_saved_agent(make, tmp_path, live, no_play):
    path = make("train")
    recipe = replace(RECIPE, updates_per_hour=30, learning_rate=3e-3)
    agent_path = run({"breakout": [path]}, tmp_path / "run", recipe)
    with Part(path) as part:
        pixels = part.read("frames", 0, TIMES // HOURS).astype(np.float64)
        observations = torch.from_numpy(part.observations(np.arange(40, 72), np.zeros(32, np.int64)))
    (student,) = live
    assert float(student.shift) == pytest.approx(pixels.mean(), rel=0.02)
    assert float(student.scale) == pytest.approx(1 / pixels.std(), rel=0.02)
    saved = load_agent(agent_path)[0]
    assert (float(saved.shift), float(saved.scale)) == (0.0, pytest.approx(1 / 255))
    with torch.no_grad():
        ours = student(observations, "breakout")
        torch.testing.assert_close(saved(observations, "breakout"), ours, rtol=1e-4, atol=1e-4)
        # And both are what a network fed with standardised pixels would say.
        x = (observations.float() - student.shift) * student.scale
        for layer in (student.conv1, student.conv2, student.conv3):
            x = F.relu(layer(x))
        x = student.controllers["breakout"](F.relu(student.hidden(x.flatten(1))))
        torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)
    assert ours.std(0).min() > 0.05  # else any two networks would agree


def test_the_papers_scaling_is_a_division_by_255(make, tmp_path, live, no_play):
    run({"breakout": [make("train")]}, tmp_path / "run", replace(RECIPE, input_scaling="unit"))
    assert (float(live[0].shift), float(live[0].scale)) == (0.0, pytest.approx(1 / 255))


# Several games


def test_two_games_take_turns_and_share_mean_and_scale(make, tmp_path, monkeypatch, live, windows):
    seen = []

    def keep(agent, game, *arguments, **options):
        seen.append((game, {name: tensor.clone() for name, tensor in agent.state_dict().items()}))
        return weight_score(agent, game)

    monkeypatch.setattr(evaluate, "play_episodes", keep)
    dark = make("dark", light=20)
    bright = make("bright", seed=1, game="freeway", action_ids=(0, 2, 5), light=200)
    agent_path = run({"breakout": [dark], "freeway": [bright]}, tmp_path / "run")

    agent, metadata = load_agent(agent_path)
    assert agent.actions == {"breakout": (0, 1, 3, 4), "freeway": (0, 2, 5)}
    assert metadata["updates"] == HOURS * 5 * 2
    pushes = [entry[1:] for entry in windows.log if entry[0] == "push"]
    assert pushes == [(window, name, hour) for hour in range(3) for window, name in ((0, "dark"), (1, "bright"))]
    samples = [entry[1] for entry in windows.log if entry[0] == "sample"]
    assert samples == [0, 1] * 15

    moments = []
    for path in (dark, bright):
        with Part(path) as part:
            pixels = part.read("frames", 0, TIMES // HOURS).astype(np.float64)
        moments.append((pixels.mean(), (pixels**2).mean()))
    mean, square = np.mean(moments, axis=0)
    assert float(live[0].shift) == pytest.approx(mean, rel=0.02)
    assert float(live[0].scale) == pytest.approx(1 / math.sqrt(square - mean**2), rel=0.02)

    assert [game for game, _ in seen] == ["breakout", "freeway"] * 3
    for name in ("conv1.weight", "hidden.weight", "controllers.breakout.weight", "controllers.freeway.weight"):
        assert not torch.equal(seen[0][1][name], seen[-1][1][name])
    assert list(curve(tmp_path / "run").columns) == [
        "update",
        "loss",
        "agreement",
        "return_breakout",
        "return_freeway",
    ]


def test_the_shorter_data_set_sets_the_hours(make, tmp_path, no_play):
    parts = {
        "breakout": [make("one"), make("two", seed=1)],
        "freeway": [make("three", game="freeway", action_ids=(0, 2, 5))],
    }
    agent_path = run(parts, tmp_path / "run")
    assert load_agent(agent_path)[1]["updates"] == 3 * 5 * 2


# What is refused

MACHADO = json.dumps(asdict(PROTOCOLS["machado2018"]))


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-4096])
    return path


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (lambda make: {"pong": [make("wrong")]}, "holds breakout, expected pong"),
        (lambda make: {"breakout": [make("good"), make("wrong", game="pong")]}, "holds pong, expected breakout"),
        (lambda make: {"breakout": [make("good"), make("wrong", teacher="0" * 64)]}, "its teacher differs"),
        (lambda make: {"breakout": [make("good"), make("wrong", protocol=MACHADO)]}, "its protocol differs"),
        (lambda make: {"breakout": [make("good"), make("wrong", action_ids=(0, 1, 4, 3))]}, "its action_ids differs"),
        (lambda make: {"breakout": [make("good"), make("wrong", hours=1)]}, "its hours differs"),
        (lambda make: {"breakout": [make("good"), cut_short(make("wrong"))]}, "truncated"),
        (lambda make: {"breakout": [cut_short(make("wrong"))]}, "truncated"),
        (lambda make: {"breakout": [make("good").with_name("wrong.h5")]}, "no such file"),
        (
            lambda make: {
                "breakout": [make("good")],
                "freeway": [make("wrong", game="freeway", action_ids=(0, 2, 5), protocol=MACHADO)],
            },
            "its protocol differs",
        ),
    ],
)
def test_parts_that_do_not_belong_together_are_refused_in_one_line(make, tmp_path, no_play, parts, message):
    with pytest.raises(DatasetError, match=message) as caught:
        run(parts(make), tmp_path / "run")
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'wrong.h5'}: ")
    assert len(text.splitlines()) == 1
    assert not (tmp_path / "run" / "agent.safetensors").exists()


# Interruption


def interrupted_at(update, parts, folder, recipe=RECIPE, **options):
    """A run that SIGTERM reaches while it makes this update; returns its exit code."""
    advance = progress.Progress.advance

    def noted(self, units):
        advance(self, units)
        if self._done == update:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress.Progress, "advance", noted)
        try:
            run(parts, folder, recipe, **options)
        except SystemExit as stop:  # its traceback holds the run, and with it the lock: let go of it
            code = stop.code
    gc.collect()
    return code


def assert_same_end(one, other):
    assert same_tensors(tensors(one / "agent.safetensors"), tensors(other / "agent.safetensors"))
    pd.testing.assert_frame_equal(curve(one), curve(other), check_exact=True)
    assert pd.read_csv(other / "progress.csv")["seconds"].is_monotonic_increasing
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("update", [3, 5, 13, 17, 22, 25, 30])
def test_a_terminated_run_ends_with_the_same_bits(make, tmp_path, capsys, no_play, update):
    """Within the first hour, between hours and after the window has come round, in both parts, and at the end."""
    parts = {"breakout": [make("part0"), make("part1", seed=1)]}
    run(parts, tmp_path / "whole")
    assert interrupted_at(update, parts, tmp_path / "stopped") == 143
    assert (tmp_path / "stopped" / "state" / "state.pt").exists()
    assert not (tmp_path / "stopped" / "agent.safetensors").exists()
    run(parts, tmp_path / "stopped")
    assert f"resuming at update {update} of 30" in capsys.readouterr().out
    assert_same_end(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
@pytest.mark.parametrize("update", [4, 15, 27])
def test_a_terminated_run_of_two_games_ends_with_the_same_bits(make, tmp_path, no_play, update):
    recipe = replace(RECIPE, optimizer="rmsprop", optimizer_epsilon=0.01, loss="nll")
    parts = {"breakout": [make("one")], "freeway": [make("two", seed=1, game="freeway", action_ids=(0, 2, 5))]}
    run(parts, tmp_path / "whole", recipe)
    assert interrupted_at(update, parts, tmp_path / "stopped", recipe) == 143
    run(parts, tmp_path / "stopped", recipe)
    assert_same_end(tmp_path / "whole", tmp_path / "stopped")


CHILD = """
import itertools, os, signal, sys
from pathlib import Path
import torch
sys.path.insert(0, {tests!r})
import test_distill
from policy_distillation import run as runs
from policy_distillation import state
from policy_distillation.protocols import PROTOCOLS
PROTOCOLS["short"] = test_distill.SHORT
test_distill.evaluate.play_episodes = test_distill.weight_score
# A checkpoint after each update; the power fails while the eighth is being written.
runs.SAVING_SHARE = 1e9
saves, save = itertools.count(1), torch.save
def save_or_die(state, buffer):
    if next(saves) == 8:
        Path({folder!r}, "state", ".state.pt.tmp.pt").write_bytes(b"PK half of a file")
        os.kill(os.getpid(), signal.SIGKILL)
    save(state, buffer)
state.torch.save = save_or_die
test_distill.run({{"breakout": [Path({part!r})]}}, Path({folder!r}), checkpoint_seconds=0)
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(make, tmp_path, capsys, no_play):
    part = make("train")
    code = CHILD.format(tests=str(Path(__file__).parent), part=str(part), folder=str(tmp_path / "killed"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(module.__file__).parents[1])}
    child = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    run({"breakout": [part]}, tmp_path / "killed")
    assert "resuming at update 7 of 15" in capsys.readouterr().out
    run({"breakout": [part]}, tmp_path / "whole")
    assert_same_end(tmp_path / "whole", tmp_path / "killed")


def test_other_settings_or_data_start_afresh(make, tmp_path, capsys, no_play):
    parts = {"breakout": [make("train")]}
    interrupted_at(7, parts, tmp_path / "recipe")
    run(parts, tmp_path / "recipe", replace(RECIPE, learning_rate=2e-3))
    interrupted_at(7, parts, tmp_path / "data")
    run({"breakout": [make("other", seed=5)]}, tmp_path / "data")
    output = capsys.readouterr().out
    assert output.count("starting afresh") == 2
    assert "resuming" not in output


# Who drives, how much data, which teacher


@pytest.fixture
def hours(monkeypatch):
    """The hours that students drove: driver, its weights, slots it drove, emulators, and the part's steps and ends."""
    log = []

    def noted(play, teacher, settings, path, attributes, driver, driven):
        weights = {name: tensor.clone() for name, tensor in driver.state_dict().items()}
        record(play, teacher, settings, path, attributes, driver, driven)
        with Part(path) as part:
            ends = part.read("terminations", 0, part.times) | part.read("truncations", 0, part.times)
            log.append(SimpleNamespace(**locals()))

    monkeypatch.setattr(hours_module, "record", noted)
    return log


@pytest.fixture
def driving(base, make, request):
    """A part and its teacher; a student that drives begins in the middle of games."""
    count = getattr(request, "param", HOURS)
    play = Dataset(count, TIMES * SLOTS // count, SLOTS, epsilon=0.5, warmup_steps=40)
    return {"breakout": [make("train", hours=count, settings=json.dumps(asdict(play)))]}, {
        "breakout": base.parent / "agent.safetensors"
    }


@pytest.mark.slow
@pytest.mark.parametrize(("driver", "driven"), [("student", SLOTS), ("mix", SLOTS // 2)])
def test_a_student_drives_hour_by_hour(driving, tmp_path, hours, windows, monkeypatch, no_play, driver, driven):
    students = []

    class Noted(Student):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            students.append(self)

    monkeypatch.setattr(module, "Student", Noted)
    parts, teachers = driving
    run(parts, tmp_path / "run", replace(RECIPE, driver=driver, averaging=0.8), teachers=teachers)
    pushes = [event[2:] for event in windows.log if event[0] == "push"]
    assert pushes == [("train", 0), ("hour-breakout-1", 0), ("hour-breakout-2", 0)]  # first what the teacher recorded
    assert [hour.driven for hour in hours] == [driven] * (HOURS - 1)
    assert all(hour.driver is students[0].average for hour in hours)  # what is scored
    assert students[0].average is not students[0].agent
    assert not torch.equal(hours[0].weights["conv1.weight"], hours[1].weights["conv1.weight"])
    assert not (tmp_path / "run/state").exists()


@pytest.mark.slow
def test_a_driving_student_names_the_data_that_it_learns_from_alone(driving, tmp_path, hours, no_play):
    """Of the teachers' play the first part, however many there are: those tell it how long to play."""
    parts, teachers = driving
    twice = {"breakout": parts["breakout"] * 2}
    run(twice, tmp_path / "run", replace(RECIPE, driver="student"), teachers=teachers)
    assert len(hours) == 2 * HOURS - 1
    with Part(parts["breakout"][0]) as part:
        assert read_metadata(tmp_path / "run/agent.safetensors")["data"] == {"breakout": [part.content]}


@pytest.mark.slow
def test_a_driving_students_games_go_on_from_hour_to_hour(driving, tmp_path, hours, no_play):
    parts, teachers = driving
    run(parts, tmp_path / "run", replace(RECIPE, driver="student"), teachers=teachers)
    first, second = hours
    assert first.part.steps[0].all()  # in the middle of games, not all at the same step
    assert len(set(first.part.steps[0].tolist())) == SLOTS
    np.testing.assert_array_equal(second.part.steps[0], np.where(first.ends[-1], 0, first.part.steps[-1] + 1))
    assert second.part.steps[0].any()


@pytest.mark.slow
@pytest.mark.parametrize("update", [2, 5, 8, 14])
def test_a_terminated_run_of_a_driving_student_ends_with_the_same_bits(driving, tmp_path, no_play, update):
    parts, teachers = driving
    recipe = replace(RECIPE, driver="student")
    run(parts, tmp_path / "whole", recipe, teachers=teachers)
    assert interrupted_at(update, parts, tmp_path / "stopped", recipe, teachers=teachers) == 143
    run(parts, tmp_path / "stopped", recipe, teachers=teachers)
    assert_same_end(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
@pytest.mark.parametrize("driving", [6], indirect=True)
def test_a_driving_students_hours_are_deleted_once_no_window_reaches_them(driving, tmp_path, no_play, monkeypatch):
    """In the fifth hour, with windows of two: the third is what the newest state needed when the fifth began."""
    monkeypatch.setattr(run_module, "SAVING_SHARE", math.inf)  # a state every update, however slow the disk
    parts, teachers = driving
    recipe = replace(RECIPE, driver="student")
    assert interrupted_at(23, parts, tmp_path / "run", recipe, teachers=teachers, checkpoint_seconds=0) == 143
    kept = sorted((tmp_path / "run/state").glob("hour-*.h5"))
    assert [path.stem for path in kept] == ["hour-breakout-2", "hour-breakout-3", "hour-breakout-4"]


@pytest.mark.slow
def test_hours_that_were_played_after_the_state_are_played_again(driving, tmp_path, hours, no_play):
    """Killed in the third hour, with the state of the second: the emulators go on from where that state left them."""
    parts, teachers = driving
    recipe = replace(RECIPE, driver="mix")
    run(parts, tmp_path / "whole", recipe, teachers=teachers)
    assert interrupted_at(8, parts, tmp_path / "stopped", recipe, teachers=teachers) == 143
    hour = tmp_path / "stopped/state/hour-breakout-1.h5"
    shutil.copy(hour, hour.with_name("hour-breakout-2.h5"))
    run(parts, tmp_path / "stopped", recipe, teachers=teachers)
    assert [note.path.stem for note in hours] == [f"hour-breakout-{number}" for number in (1, 2, 1, 2)]
    assert hours[3].part.digest == hours[1].part.digest
    assert_same_end(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "done", "played"),
    [("whole games", 5, {}), ("hour", 10, {"breakout": 1}), ("games again", 10, {"breakout": 1})],
)
def test_a_driven_hour_is_cut_short_by_a_signal_and_played_from_its_beginning(
    driving, tmp_path, monkeypatch, no_play, moment, done, played
):
    """While whole games are played to begin in, in the middle of an hour, while a state's games are played again."""
    parts, teachers = driving
    recipe = replace(RECIPE, driver="student")
    run(parts, tmp_path / "whole", recipe, teachers=teachers)
    if moment == "games again":
        assert interrupted_at(8, parts, tmp_path / "stopped", recipe, teachers=teachers) == 143
    step, again, steps = Play.step, Play._play_again, []

    def stepping(self, *arguments):
        steps.append("hour" if len(arguments) > 2 else "whole games")
        if steps.count(moment) == {"hour": TIMES // HOURS + 9, "whole games": 3}.get(moment):
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments)

    def playing_again(self, games):
        if moment == "games again":
            os.kill(os.getpid(), signal.SIGTERM)
        again(self, games)

    with monkeypatch.context() as patch:
        patch.setattr(Play, "step", stepping)
        patch.setattr(Play, "_play_again", playing_again)
        with pytest.raises(SystemExit) as stopped:
            run(parts, tmp_path / "stopped", recipe, teachers=teachers)
    assert stopped.value.code == 143
    del stopped
    gc.collect()
    state = torch.load(tmp_path / "stopped/state/state.pt", weights_only=True)
    assert state["done"] == done
    assert {game: entry["hour"] for game, entry in state["parts"]["hours"].items()} == played
    run(parts, tmp_path / "stopped", recipe, teachers=teachers)
    assert_same_end(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
@pytest.mark.parametrize("purged", [False, True])
def test_an_hour_that_a_purge_took_is_not_played_again_by_another(driving, tmp_path, capsys, no_play, purged):
    """The student has learnt since, so the run starts afresh and ends as if it had never been stopped."""
    parts, teachers = driving
    recipe = replace(RECIPE, driver="student")
    run(parts, tmp_path / "whole", recipe, teachers=teachers)
    assert interrupted_at(8, parts, tmp_path / "stopped", recipe, teachers=teachers) == 143
    if purged:
        (tmp_path / "stopped/state/hour-breakout-1.h5").unlink()
    run(parts, tmp_path / "stopped", recipe, teachers=teachers)
    output = capsys.readouterr().out
    assert ("hour-breakout-1.h5: missing or damaged, so state.pt is of no use; starting afresh" in output) == purged
    assert ("resuming at update 8" in output) != purged
    assert_same_end(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
def test_a_state_needs_no_hour_that_has_left_the_window(driving, tmp_path, no_play):
    parts, teachers = driving
    recipe = replace(RECIPE, driver="student", window_hours=1)
    for update, needed in ((8, ["hour-breakout-1.h5"]), (10, []), (12, ["hour-breakout-2.h5"])):
        assert interrupted_at(update, parts, tmp_path / f"{update}", recipe, teachers=teachers) == 143
        state = torch.load(tmp_path / f"{update}/state/state.pt", weights_only=True)
        assert [file["name"] for file in state["files"].values()] == needed


@pytest.mark.slow
def test_hours_driven_under_other_settings_are_forgotten(driving, tmp_path, hours, no_play):
    parts, teachers = driving
    recipe = replace(RECIPE, driver="student")
    assert interrupted_at(7, parts, tmp_path / "run", recipe, teachers=teachers) == 143
    assert len(hours) == 1
    run(parts, tmp_path / "run", replace(recipe, learning_rate=2e-3), teachers=teachers)
    assert len(hours) == 1 + HOURS - 1


def test_one_emulator_is_not_shared(tmp_path):
    recorded = SimpleNamespace(first={"breakout": SimpleNamespace(slots=1, path="part0.h5")})
    with pytest.raises(DatasetError, match=r"part0\.h5: one emulator cannot be shared"):
        hours_module.DrivenHours(recorded, None, 0.5, {}, tmp_path, 0, "cpu")
    hours_module.DrivenHours(recorded, None, 1.0, {}, tmp_path, 0, "cpu")


def test_averaged_weights_are_what_is_scored_and_saved(make, tmp_path, monkeypatch, live, no_play):
    """The moving average by hand; and, at the end, the plain run's weights are not it."""
    seen, updates = [], []

    def scored(agent, *_, **options):
        seen.append(agent.conv2.weight.detach().clone())
        return weight_score(agent, "")

    monkeypatch.setattr(evaluate, "play_episodes", scored)

    def noted(*arguments):
        optimizer = optimizers.make_optimizer(*arguments)
        weight = optimizer.param_groups[0]["params"][2]  # that of conv2
        updates.append(weight.detach().clone())
        optimizer.register_step_post_hook(lambda *_: updates.append(weight.detach().clone()))
        return optimizer

    monkeypatch.setattr(algorithm, "make_optimizer", noted)
    run({"breakout": [make("train")]}, tmp_path / "run", replace(RECIPE, averaging=0.8))
    average = updates[0].clone()
    for update, weights in enumerate(updates[1:]):
        decay = min(0.8, (1 + update) / (10 + update))
        average = decay * average + (1 - decay) * weights
    torch.testing.assert_close(live[0].conv2.weight, average)
    torch.testing.assert_close(seen[-1], average)
    assert not torch.allclose(average, updates[-1], atol=1e-6)
    assert float(live[0].shift) > 0


@pytest.mark.parametrize("update", [4, 13])
def test_a_terminated_run_with_averaging_ends_with_the_same_bits(make, tmp_path, no_play, update):
    recipe, parts = replace(RECIPE, averaging=0.9), {"breakout": [make("train")]}
    run(parts, tmp_path / "whole", recipe)
    assert interrupted_at(update, parts, tmp_path / "stopped", recipe) == 143
    run(parts, tmp_path / "stopped", recipe)
    assert_same_end(tmp_path / "whole", tmp_path / "stopped")


def test_less_data_is_spread_over_each_hour_and_gets_as_many_updates(make, tmp_path, windows, no_play):
    path = make("train")
    run({"breakout": [path]}, tmp_path / "run", replace(RECIPE, data=0.25))
    assert len(curve(tmp_path / "run")) == RECIPE.evaluations
    assert curve(tmp_path / "run")["update"].iloc[-1] == HOURS * RECIPE.updates_per_hour
    with Part(path) as part:
        rows = part.read("q_values", 0, part.times)
    places = {row.tobytes(): time for time, rows in enumerate(rows) for row in rows}
    sampled = {row.tobytes() for event in windows.log if event[0] == "sample" for row in event[2].numpy()}
    times = {places[row] % (TIMES // HOURS) for row in sampled}
    assert times == set(range(8))  # of 32: one run
    assert len(sampled) > HOURS * 8 * SLOTS / 2


def test_online_parts_come_from_one_snapshot_each(make, tmp_path, windows, no_play):
    parts = {"breakout": [make(f"part{k}", seed=k, teacher=f"{k}" * 64) for k in range(3)]}
    with pytest.raises(DatasetError, match="its teacher differs"):
        run(parts, tmp_path / "final")
    agent_path = run(parts, tmp_path / "online", replace(RECIPE, teacher="online"))
    assert load_agent(agent_path)[1]["teachers"] == {"breakout": "2" * 64}  # what it had become in the end
    pushes = [event[2:] for event in windows.log if event[0] == "push"]
    assert pushes == [(f"part{k}", hour) for k in range(3) for hour in range(HOURS)]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_distillation_on_the_gpu_equals_that_on_the_cpu(make, tmp_path, no_play):
    recipe = replace(RECIPE, optimizer="rmsprop", optimizer_epsilon=0.01)  # Adam would blow up the last bits
    parts = {"breakout": [make("train")]}
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        cpu, gpu = (tensors(run(parts, tmp_path / device, recipe, device=device)) for device in ("cpu", "cuda"))
    for name, tensor in cpu.items():
        torch.testing.assert_close(gpu[name], tensor, rtol=1e-3, atol=1e-4)
    losses = [curve(tmp_path / device)["loss"].tolist() for device in ("cpu", "cuda")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_captured_updates_of_two_games_with_averaging_equal_the_cpus(make, tmp_path, no_play, live):
    """One graph a game, which share the student and its optimiser; the average is taken outside them."""
    recipe = replace(RECIPE, optimizer="rmsprop", optimizer_epsilon=0.01, averaging=0.9, updates_per_hour=8)
    parts = {"breakout": [make("one")], "freeway": [make("two", seed=1, game="freeway", action_ids=(0, 2, 5))]}
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        cpu, gpu = (tensors(run(parts, tmp_path / device, recipe, device=device)) for device in ("cpu", "cuda"))
    for name, tensor in cpu.items():
        torch.testing.assert_close(gpu[name], tensor, rtol=1e-3, atol=1e-4)


def test_batches_are_copied_without_waiting():
    waits = []

    class Given:
        def __init__(self, tensor):
            self.tensor = tensor

        def to(self, device, non_blocking=False):
            waits.append(not non_blocking)
            return self.tensor.to(device)

    student = Student(Agent(TINY, {"breakout": [0, 1, 3, 4]}), RECIPE, "float32")
    student.update("breakout", Given(torch.zeros(8, 4, 84, 84, dtype=torch.uint8)), Given(torch.randn(8, 4)))
    assert waits == [False, False]


def test_means_over_millions_of_updates_are_means():
    """In float32 one more than 2**24 is 2**24."""
    student = Student(Agent(TINY, {"breakout": [0, 1, 3, 4]}), RECIPE, "float32")
    student.sums += torch.tensor([0.5, 0.25, 1.0], dtype=torch.float64) * 2**24
    for _ in range(2):
        student.update("breakout", torch.zeros(8, 4, 84, 84, dtype=torch.uint8), torch.randn(8, 4))
    assert student.sums[2] == 2**24 + 2
    assert student.facts() == {"loss": pytest.approx(0.5, 1e-5), "agreement": pytest.approx(0.25, 1e-5)}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("window", ["cuda", "cpu"])
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "muon"])
def test_an_update_does_not_wait_for_the_gpu(optimizer, window):
    """Wherever the window lies: the next batch is drawn while the GPU learns from this one."""
    recipe = replace(RECIPE, optimizer=optimizer, averaging=0.9)
    student = Student(Agent(TINY, {"breakout": [0, 1, 3, 4]}).to("cuda"), recipe, "float32")
    observations = torch.randint(0, 256, (8, 4, 84, 84), dtype=torch.uint8, device=window)
    teacher_q = torch.randn(8, 4, device=window)

    def update(number):
        scale_learning_rates(student.optimizer, schedule_factor(number, 100, "cosine"))
        student.update("breakout", observations, teacher_q)
        student.average_weights(number)

    for number in range(WARM_UP + 2):  # until the update is a graph
        update(number)
    torch.cuda.set_sync_debug_mode("error")
    try:
        update(WARM_UP + 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert student.sums[2] == WARM_UP + 3


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "muon"])
def test_a_run_moves_from_gpu_to_cpu_and_back(make, tmp_path, capsys, no_play, optimizer):
    recipe = replace(RECIPE, optimizer=optimizer, optimizer_epsilon=0.01)
    parts = {"breakout": [make("part0"), make("part1", seed=1)]}
    whole = tensors(run(parts, tmp_path / "whole", recipe))
    assert interrupted_at(11, parts, tmp_path / "moved", recipe, device="cuda") == 143
    assert interrupted_at(21, parts, tmp_path / "moved", recipe, device="cpu") == 143
    moved = tensors(run(parts, tmp_path / "moved", recipe, device="cuda"))
    output = capsys.readouterr().out
    assert "resuming at update 11 of 30" in output
    assert "resuming at update 21 of 30" in output
    assert "afresh" not in output
    for name, tensor in whole.items():
        torch.testing.assert_close(moved[name], tensor, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_the_example_learns_by_whatever_loss_it_is_given(base, make, tmp_path, monkeypatch):
    """docs/examples/own_loss.py."""
    example = load_example("own_loss")
    monkeypatch.setattr(example, "PROTOCOL", "short")
    monkeypatch.setattr(example, "NET3", TINY)
    monkeypatch.setattr(example, "GAMES", Evaluation(episodes=2, envs=2, epsilon=0.05))
    monkeypatch.setattr(example, "dump_part", lambda *given: pytest.fail("recorded again"))
    make("breakout")
    with Part(tmp_path / "breakout.h5") as part:
        monkeypatch.setattr(example, "PLAY", Dataset(**part.settings))
        teacher = part.teacher

    def agreement(output):
        example.main(base.with_name("agent.safetensors"), "breakout", output=tmp_path / output, updates=150)
        agent, metadata = load_agent(tmp_path / output)
        assert (metadata["protocol"], agent.readouts["breakout"].outputs) == (asdict(SHORT), "logits")
        assert (metadata["kind"], metadata["teachers"]) == ("student", {"breakout": teacher})
        with Part(tmp_path / "breakout.h5") as part:
            window = Window(part, part.hours)
            window.push(part, 0)
        observations, q_values = window.sample(200, np.random.default_rng(1))
        return (agent.q_values(observations.numpy(), "breakout").argmax(1) == q_values.argmax(1).numpy()).mean()

    assert agreement("best.safetensors") > 0.9
    monkeypatch.setattr(example, "loss", lambda student, teacher: F.cross_entropy(student, teacher.argmin(1)))
    assert agreement("worst.safetensors") < 0.1
    refused = pytest.raises(
        SystemExit, match=r"breakout\.h5: another teacher's play, or recorded otherwise; move it away"
    )
    with refused:
        example.main(tmp_path / "worst.safetensors", "breakout", output=tmp_path / "third.safetensors")
    monkeypatch.setattr(example, "PLAY", replace(example.PLAY, epsilon=0.1))
    with refused:
        example.main(base.with_name("agent.safetensors"), "breakout", output=tmp_path / "third.safetensors")
