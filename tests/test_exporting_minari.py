"""Data sets as Minari ones: what Minari itself loads is what the part holds, bit for bit."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict

import gymnasium
import h5py
import numpy as np
import pytest
import torch
from conftest import ROOT
from policy_distillation.__main__ import main
from policy_distillation.checkpoints import save_agent
from policy_distillation.exporting import ExportError
from policy_distillation.exporting.environment import environment_spec, make_environment
from policy_distillation.exporting.minari import episodes, export_minari
from policy_distillation.networks import Agent, Network
from policy_distillation.parts import Part
from policy_distillation.protocols import PROTOCOLS
from policy_distillation.readouts import Readout
from policy_distillation.recording import Dataset, dump_part

minari = pytest.importorskip("minari")
torch.set_num_threads(1)

PLAY = Dataset(hours_per_part=2, steps_per_hour=600, envs=3, epsilon=0.5)


def record(folder, number=0, outputs="q_values", protocol="paper2015"):
    """A part of a tiny agent's play: games of Breakout end after some 150 steps, and 400 are recorded in each slot."""
    torch.manual_seed(0)
    teacher, path = folder / f"{outputs}.safetensors", folder / f"{outputs}{number}.h5"
    agent = Agent(Network((4, 4, 4), 16), {"breakout": (0, 1, 3, 4)}, {"breakout": Readout(outputs)})
    save_agent(teacher, agent, {"protocol": asdict(PROTOCOLS[protocol])})
    dump_part(teacher, "breakout", protocol, number, PLAY, 0, path)
    return path


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    return [record(folder, 0), record(folder, 1)]


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


@pytest.mark.slow
def test_minari_loads_every_episode_bit_for_bit(parts, root):
    assert export_minari(parts, "breakout/teacher-v0") == root / "breakout" / "teacher-v0"
    loaded = list(minari.load_dataset("breakout/teacher-v0").iterate_episodes())
    games = []
    for path in parts:
        with Part(path) as part:
            for game in episodes(part):
                check_episode(part, game, loaded[len(games)])
                games.append(game)
    assert len(loaded) == len(games)
    assert {game.ended for game in games} == {True, False}
    assert sum(game.ended for game in games) >= 4


def check_episode(part, game, found):
    slot, steps = game.slot, game.steps
    times = np.arange(game.start, game.stop)
    seen = part.observations(times, np.full(len(times), slot))
    values = part.read("q_values", game.start, game.stop)[:, slot]
    assert len(found) == steps
    assert found.observations.dtype == np.uint8
    assert found.observations.shape == (steps + 1, 4, 84, 84)
    np.testing.assert_array_equal(found.observations[: len(seen)], seen)
    np.testing.assert_array_equal(found.infos["q_values"][: len(seen)], values)
    for name in ("actions", "rewards"):
        np.testing.assert_array_equal(getattr(found, name), part.read(name, game.start, game.start + steps)[:, slot])
    if game.ended:  # what came after the last action was not recorded, and that can be seen
        assert len(seen) == steps
        np.testing.assert_array_equal(found.observations[-1], seen[-1])
        assert np.isnan(found.infos["q_values"][-1]).all()
        assert [bool(found.terminations[-1]), bool(found.truncations[-1])] == [
            bool(part.read(name, game.stop - 1, game.stop)[0, slot]) for name in ("terminations", "truncations")
        ]
    else:  # the recording ended: one step less, of which everything was recorded
        assert len(seen) == steps + 1
        assert not found.terminations[-1]
        assert found.truncations[-1]
    assert not found.terminations[:-1].any()
    assert not found.truncations[:-1].any()


def test_the_games_are_those_of_the_part(parts):
    with Part(parts[0]) as part, h5py.File(parts[0]) as file:
        table = file["episodes"]
        complete = table["complete"][...]
        found = list(episodes(part))
        assert [(game.slot, game.start, game.stop - game.start, game.ended) for game in found] == list(
            zip(table["slot"], table["start"], table["length"], complete, strict=True)
        )
        for game, expected in zip(found, table["return"], strict=True):
            assert part.read("rewards", game.start, game.stop)[:, game.slot].sum() == expected


def test_the_metadata_names_where_it_comes_from(parts, root):
    folder = export_minari(parts[:1], "breakout-v3")
    dataset = minari.load_dataset("breakout-v3")
    with Part(parts[0]) as part:
        metadata = json.loads((folder / "data" / "metadata.json").read_text())
        assert metadata["parts"] == {parts[0].name: part.digest}
        assert (metadata["game"], metadata["action_ids"]) == (part.game, part.action_ids)
        assert (metadata["protocol"], metadata["teacher"]) == (part.protocol, part.teacher)
        assert dataset.total_steps == sum(game.steps for game in episodes(part))
        assert dataset.total_episodes == len(list(episodes(part)))
    env = dataset.recover_environment()
    assert env.observation_space == dataset.observation_space == gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert env.action_space == dataset.action_space == gymnasium.spaces.Discrete(4)
    assert "breakout-v3" in minari.list_local_datasets()


def test_whoever_reads_hdf5_reads_it(parts, root):
    folder = export_minari(parts[:1], "breakout-v0")
    with h5py.File(folder / "data" / "main_data.hdf5") as file:
        arrays = []
        file.visititems(lambda name, item: arrays.append(item) if isinstance(item, h5py.Dataset) else None)
        assert {array.compression for array in arrays} == {"gzip"}
        raw = sum(array.nbytes for array in arrays)
    assert (folder / "data" / "main_data.hdf5").stat().st_size < raw / 20


@pytest.mark.slow
def test_logits_are_called_logits(tmp_path):
    export_minari([record(tmp_path, 0, "logits")], "breakout-v0")
    first = next(iter(minari.load_dataset("breakout-v0").iterate_episodes()))
    assert list(first.infos) == ["logits"]


@pytest.mark.slow
def test_what_does_not_belong_together_is_refused(parts, tmp_path, root):
    other = record(tmp_path, 0, "logits")
    with pytest.raises(ExportError, match="its teacher is not that of"):
        export_minari([parts[0], other], "breakout-v0")
    again = tmp_path / "again.h5"
    shutil.copy(parts[1], again)
    with pytest.raises(ExportError, match=f"{again}: the same part as {parts[1]}"):
        export_minari([*parts, again], "breakout-v0")
    for name in ("breakout", "../breakout-v0", "/tmp/breakout-v0", "a b-v0", "breakout-v0/"):
        with pytest.raises(ExportError, match=f"{re.escape(repr(name))} is no name for a Minari data set"):
            export_minari(parts, name)
    assert not root.exists()
    export_minari(parts[:1], "breakout-v0")
    with pytest.raises(ExportError, match="exists; choose another name"):
        export_minari(parts[:1], "breakout-v0")


def test_what_fails_leaves_nothing_behind(parts, root, monkeypatch):
    def fail(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr("policy_distillation.exporting.minari._metadata", fail)
    with pytest.raises(OSError, match="No space left"):
        export_minari(parts[:1], "breakout-v0")
    assert not list(root.iterdir())


@pytest.mark.slow
def test_the_command(parts, root, monkeypatch):
    command = [sys.executable, "-m", "policy_distillation", "export", str(parts[0]), "--to", "minari"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"written to {root / 'breakout' / 'teacher-v0'}\n", "")
    teacher = str(ROOT / "resources/teachers/pong/agent.safetensors")
    monkeypatch.setattr("sys.argv", ["policy_distillation", "export", teacher, "--to", "minari"])
    with pytest.raises(SystemExit, match="not a part of a teacher data set"):
        main()


def test_the_program_in_the_docs_reads_it(parts, root):
    export_minari(parts[:1], "pong/teacher-v0")
    (program,) = re.findall(r"```python\n(import minari.*?)```", (ROOT / "docs/using.md").read_text(), re.S)
    names = {}
    exec(program, names)
    assert names["episode"].infos["q_values"].shape == (len(names["episode"]) + 1, 4)


def test_a_protocol_that_gymnasium_cannot_follow_has_no_environment():
    assert environment_spec("breakout", PROTOCOLS["sb3"]) is None
    with pytest.raises(ValueError, match="presses FIRE after a reset"):
        make_environment("breakout", PROTOCOLS["sb3"])
    env = make_environment("breakout", PROTOCOLS["machado2018"])
    assert env.action_space.n == 18
    first = env.reset(seed=0)[0]
    assert not first[:3].any()
    assert first[3].any()
    padded = make_environment("breakout", PROTOCOLS["pfrl"]).reset(seed=0)[0]
    assert (padded == padded[3]).all()
