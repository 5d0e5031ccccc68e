"""Teacher data sets: what is stored is what the emulator showed and the teacher did, and nothing damaged is read."""

import faulthandler
import json
import os
import re
import shutil
import signal
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import h5py
import numpy as np
import pytest
import torch
from conftest import load_example
from hypothesis import example, given, settings
from hypothesis import strategies as st
from policy_distillation import play, recording
from policy_distillation.atari import AtariVector
from policy_distillation.checkpoints import save_agent
from policy_distillation.dataset_format import EPISODE_FIELDS, SCHEMA, DatasetError, seal
from policy_distillation.files import Locked, file_digest, hold_lock
from policy_distillation.networks import Agent, Network
from policy_distillation.parts import Part
from policy_distillation.play import Play
from policy_distillation.protocols import PROTOCOLS
from policy_distillation.recording import Dataset, dump_part, record
from policy_distillation.sliding_window import Window

torch.set_num_threads(1)  # tiny networks; beside another job, OpenMP's spinning threads cost ten times the work

# Games end by themselves after some 120 steps or by the cap after 150; neither hours (100 times) nor the part fall on
# the boundary of a game or of a chunk (64 times).
SHORT = replace(PROTOCOLS["paper2015"], name="short", max_episode_frames=600)
PLAY = Dataset(hours_per_part=4, steps_per_hour=200, envs=2, epsilon=0.5, warmup_steps=100)
TIMES, SLOTS, HOUR = 400, 2, 100
STEP_ARRAYS = ("q_values", "actions", "rewards", "terminations", "truncations")


class RecordingVector(AtariVector):
    """The real environment, remembering all that went in and came out."""

    made: ClassVar = []

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.observations, self.actions, self.steps = [], [], []
        RecordingVector.made.append(self)

    def reset(self):
        observations = super().reset()
        self.observations.append(observations.copy())
        return observations

    def begin(self, slots, seeds):
        observations = super().begin(slots, seeds)
        self.observations[-1] = observations.copy()  # in place of the games that ended with the step before
        return observations

    def step(self, actions):
        step = super().step(actions)
        # A bonus with the last step of each game, which Breakout never pays: a return must not miss it.
        step = replace(step, rewards=step.rewards + 10 * step.episode_ends.astype(np.float32))
        self.observations.append(step.observations.copy())
        self.actions.append(np.array(actions))
        self.steps.append(step)
        return step


@pytest.fixture(scope="module", autouse=True)
def short_games():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROTOCOLS, "short", SHORT)
        yield


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """An untrained agent whose answers differ from state to state."""
    torch.manual_seed(0)
    agent = Agent(Network((4, 4, 4), 16), {"breakout": [0, 1, 3, 4]})
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.mul_(3)
    path = tmp_path_factory.mktemp("teacher") / "agent.safetensors"
    save_agent(path, agent, {"protocol": asdict(SHORT)})
    return SimpleNamespace(path=path, agent=agent)


def dump(teacher, path, part=0, play=PLAY, seed=7, game="breakout", protocol="short"):
    dump_part(teacher.path, game, protocol, part, play, seed, path, device="cpu")
    return path


@pytest.fixture(scope="module")
def recorded(teacher, tmp_path_factory):
    """A part, and what the environment really did while it was dumped."""
    path = tmp_path_factory.mktemp("data") / "part0.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(play, "AtariVector", RecordingVector)
        dump(teacher, path)
    env = RecordingVector.made[-1]
    return SimpleNamespace(
        path=path,
        env=env,
        steps=env.steps[-TIMES:],
        observations=np.array(env.observations[-TIMES - 1 :]),  # without what was played before recording began
        actions=np.array(env.actions[-TIMES:]),
        rewards=np.array([step.rewards for step in env.steps[-TIMES:]]),
        ends=np.array([step.episode_ends for step in env.steps[-TIMES:]]),
    )


@pytest.fixture(scope="module")
def part(recorded):
    with Part(recorded.path) as part:
        yield part


def edited(source: Path, target: Path, arrays=None, attributes=None) -> Path:
    """A copy with other contents and a digest that fits them: what another version of this software might write."""
    shutil.copy(source, target)
    with h5py.File(target, "r+") as file:
        for name, values in (arrays or {}).items():
            chunks = file[name].chunks if values.shape == file[name].shape else None
            del file[name]
            file.create_dataset(name, data=values, chunks=chunks)
        file.attrs.update(attributes or {})
    seal(target)
    return target


# What is stored


def test_the_play_covers_what_the_tests_are_about(recorded):
    env, steps = recorded.env, recorded.steps
    assert recorded.ends[:-1].sum() >= 4
    assert any(step.truncations.any() for step in steps)
    assert any(step.terminations.any() for step in steps)
    assert env.num_envs == SLOTS
    # Every slot was in the middle of a game, further than a stack reaches; at different steps.
    first = [row["first_step"] for row in episodes_of(recorded.path) if row["start"] == 0]
    assert min(first) > 3
    assert len(set(first)) == SLOTS
    # The protocol's own no-op starts and true game over, without the clipping and the life losses of training.
    assert env.purpose == "play"


def test_every_stack_is_what_the_environment_returned(recorded, part):
    times, slots = np.divmod(np.arange(TIMES * SLOTS), SLOTS)
    stacks = part.observations(times, slots)
    wrong = [
        (t, s) for t, s, stack in zip(times, slots, stacks, strict=True) if (stack != recorded.observations[t, s]).any()
    ]
    assert wrong == []


def test_q_values_are_the_teachers_on_those_observations(teacher, recorded, part):
    stored = part.read("q_values", 0, TIMES)
    with torch.no_grad():
        expected = teacher.agent(torch.from_numpy(recorded.observations[:TIMES].reshape(-1, 4, 84, 84)), "breakout")
    np.testing.assert_allclose(stored.reshape(-1, 4), expected, rtol=0, atol=1e-5)
    assert stored.dtype == np.float32
    # Neighbouring times differ by far more than that, or a shift by one would go unnoticed.
    assert np.median(np.abs(np.diff(stored, axis=0)).max(-1)) > 1e-3


def test_actions_rewards_and_ends_are_those_of_the_play(recorded, part):
    steps = recorded.steps
    assert (part.read("actions", 0, TIMES) == recorded.actions).all()
    assert (part.read("rewards", 0, TIMES) == recorded.rewards).all()
    assert (part.read("terminations", 0, TIMES) == [step.terminations for step in steps]).all()
    assert (part.read("truncations", 0, TIMES) == [step.truncations for step in steps]).all()
    ends = part.read("terminations", 0, TIMES) | part.read("truncations", 0, TIMES)
    assert (ends == recorded.ends).all()


def test_actions_are_epsilon_greedy(recorded, part):
    greedy = part.read("q_values", 0, TIMES).argmax(-1)
    explored = part.read("actions", 0, TIMES) != greedy
    assert explored.mean() == pytest.approx(0.5 * 3 / 4, abs=0.06)  # one random action in four is the greedy one
    assert explored.all(1).mean() == pytest.approx((0.5 * 3 / 4) ** 2, abs=0.06)  # each slot by itself


def test_without_exploration_the_teacher_plays_its_best_action(teacher, tmp_path):
    path = dump(teacher, tmp_path / "greedy.h5", play=replace(PLAY, hours_per_part=1, epsilon=0.0))
    with Part(path) as part:
        assert (part.read("actions", 0, HOUR) == part.read("q_values", 0, HOUR).argmax(-1)).all()


@pytest.mark.slow
def test_a_driver_acts_in_its_slots_and_the_teacher_labels_them_all(teacher, tmp_path):
    torch.manual_seed(7)
    driver = Agent(Network((4, 4, 4), 16), {"breakout": [0, 1, 3, 4]})
    play = replace(PLAY, envs=4, epsilon=0.0)
    attributes = {"part": 0, "seed": 0, "teacher": file_digest(teacher.path)}
    emulators = Play("breakout", SHORT, 4, 0)
    record(emulators, teacher.agent, play, tmp_path / "part.h5", attributes, driver, 3)
    with Part(tmp_path / "part.h5") as part:
        times, slots = np.divmod(np.arange(part.times * 4), 4)
        seen = part.observations(times, slots)
        shape = (part.times, 4, 4)
        labels = teacher.agent.q_values(seen, "breakout").reshape(shape)
        wishes = driver.q_values(seen, "breakout").reshape(shape)
        np.testing.assert_allclose(part.read("q_values", 0, part.times), labels, rtol=1e-4, atol=1e-5)
        actions = part.read("actions", 0, part.times)
    sure = np.sort(wishes, -1)[..., -1] - np.sort(wishes, -1)[..., -2] > 1e-4  # apart from ties
    assert (actions == wishes.argmax(-1))[:, :3][sure[:, :3]].all()
    assert (actions[:, 3] == labels[:, 3].argmax(-1)).mean() > 0.99
    assert (actions[:, :3] != labels[:, :3].argmax(-1)).any()


def test_data_made_again_by_another_commit_is_the_same(teacher, tmp_path, monkeypatch):
    """Else every student of it would be made again, too."""
    parts = []
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        monkeypatch.setattr("policy_distillation.recording.provenance", lambda name=name: {"commit": name})
        with Part(dump(teacher, tmp_path / f"{name}.h5", seed=seed)) as part:
            parts.append(part)
    first, again, other = parts
    assert first.digest != again.digest
    assert first.content == again.content != other.content
    with Part(edited(again.path, tmp_path / "older.h5")) as older:  # before parts said so
        assert older.content == older.digest == again.digest


def test_a_part_names_the_code_that_began_to_play_it(teacher, tmp_path, monkeypatch):
    """It may be edited meanwhile, and what plays has been loaded."""
    now, add = ["before"], recording._Episodes.add
    monkeypatch.setattr(recording, "provenance", lambda: {"commit": now[-1]})
    monkeypatch.setattr(recording._Episodes, "add", lambda *args: now.append("after") or add(*args))
    dump(teacher, tmp_path / "part.h5")
    with h5py.File(tmp_path / "part.h5") as file:
        assert json.loads(file.attrs["provenance"])["commit"] == "before"


def test_the_steps_of_games_are_counted_from_where_each_began(recorded, part):
    ends, (first, *later) = recorded.ends, part.steps
    assert first.all()  # recording began in the middle
    expected = first
    for time, steps in enumerate(later):
        expected = np.where(ends[time], 0, expected + 1)
        np.testing.assert_array_equal(steps, expected)
    assert part.steps.dtype == np.int32


def test_a_part_is_written_by_one_process(teacher, tmp_path):
    """One that a killed Snakemake left behind goes on; its successor gives way, and takes nothing from it."""
    lock = hold_lock(tmp_path / ".part0.h5.lock")
    with pytest.raises(Locked, match=f"{tmp_path}: in use by process {os.getpid()} "):
        dump(teacher, tmp_path / "part0.h5")
    lock.close()
    assert dump(teacher, tmp_path / "part0.h5").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["part0.h5"]


def test_rewards_are_unclipped(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "qbert.safetensors"
    save_agent(path, Agent(Network((4, 4, 4), 16), {"qbert": range(6)}), {"protocol": asdict(SHORT)})
    play = Dataset(hours_per_part=1, steps_per_hour=400, envs=2, epsilon=1.0)
    with Part(dump(SimpleNamespace(path=path), tmp_path / "qbert.h5", play=play, game="qbert")) as part:
        assert part.read("rewards", 0, 200).max() == 25  # a cube


def episodes_of(path):
    with h5py.File(path) as file:
        columns = {name: file[f"episodes/{name}"][...].tolist() for name in file["episodes"]}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def test_episodes_fit_the_steps(recorded, part):
    rows = episodes_of(recorded.path)
    assert list(rows[0].keys()) == sorted(EPISODE_FIELDS)
    assert [(row["slot"], row["start"]) for row in rows] == sorted((row["slot"], row["start"]) for row in rows)
    rewards, ends = part.read("rewards", 0, TIMES), recorded.ends
    for slot in range(SLOTS):
        mine = [row for row in rows if row["slot"] == slot]
        starts = [row["start"] for row in mine]
        stops = [row["start"] + row["length"] for row in mine]
        assert starts == [0, *stops[:-1]]  # no gap, no overlap
        assert stops[-1] == TIMES
        assert [row["first_step"] for row in mine][1:] == [0] * (len(mine) - 1)
        for row, start, stop in zip(mine, starts, stops, strict=True):
            assert row["return"] == rewards[start:stop, slot].sum()
            assert row["complete"] == (ends[stop - 1, slot] and row["first_step"] == 0)
            assert not ends[start : stop - 1, slot].any()
            assert (part.steps[start:stop, slot] == row["first_step"] + np.arange(row["length"])).all()


def test_only_games_that_began_and_ended_here_count_as_complete(recorded):
    """The environment's own accounts, which know of the time before the recording."""
    rows = episodes_of(recorded.path)
    ended = [(step, episode) for step in recorded.steps for episode in step.episodes]
    for slot in range(SLOTS):
        games = [(row["seed"], row["first_step"] + row["length"]) for row in rows if row["slot"] == slot]
        played = [(episode.seed, episode.length) for _, episode in ended if episode.slot == slot]
        assert games[:-1] == played
        assert any(row["first_step"] > 0 for row in rows if row["slot"] == slot)
    scores = {(episode.seed, episode.slot): episode.episode_return + 10 for _, episode in ended}
    complete = [row for row in rows if row["complete"]]
    assert len(complete) == len(ended) - SLOTS
    assert all(row["return"] == scores[row["seed"], row["slot"]] for row in complete)


def test_a_game_can_be_played_again_from_its_seed(recorded, part):
    """The recorded actions of a game that began here, and nothing else, on another emulator."""
    row = next(row for row in episodes_of(recorded.path) if row["complete"])
    times, slot = row["start"] + np.arange(row["length"]), row["slot"]
    env = AtariVector("breakout", SHORT, "play", 1, 0)
    env.reset()
    observations = env.begin(np.array([True]), np.array([row["seed"]]))
    stacks = part.observations(times, np.full(len(times), slot))
    for time, stack in zip(times, stacks, strict=True):
        assert (observations[0] == stack).all()
        observations = env.step(recorded.actions[time, slot : slot + 1]).observations


def test_people_are_told_what_a_part_covers(recorded, part, teacher, tmp_path, capsys):
    coverage, ends = part.coverage(), recorded.ends
    assert (coverage.ended, coverage.complete) == (ends.sum(), ends.sum() - SLOTS)
    assert coverage.last_step == part.steps.max() + 1 == 150
    edges = [0, 37.5, 75, 112.5, 150]
    assert coverage.quarters == pytest.approx(np.histogram(part.steps, edges)[0] / part.steps.size)
    assert part.describe()["coverage"] == asdict(coverage)
    dump(teacher, tmp_path / "part.h5", play=replace(PLAY, hours_per_part=1, steps_per_hour=20, warmup_steps=0))
    output = capsys.readouterr().out
    assert "0 games ended, 0 of which began here too" in output
    assert "no step of a game beyond 10 was seen" in output
    assert "WARNING: no game ended here" in output
    assert "WARNING" not in "\n".join(coverage.lines())


def test_attributes_say_where_it_came_from(teacher, recorded, part):
    with h5py.File(recorded.path) as file:
        attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in file.attrs.items()}
    assert recorded.path.read_bytes().startswith(f"{SCHEMA}\nsha256 {part.digest}\n".encode())
    assert attributes["action_ids"].tolist() == [0, 1, 3, 4]
    assert json.loads(attributes["protocol"]) == asdict(SHORT)
    assert json.loads(attributes["settings"]) == asdict(PLAY)
    assert attributes["teacher"] == file_digest(teacher.path)
    assert (attributes["game"], attributes["part"], attributes["hours"], attributes["seed"]) == ("breakout", 0, 4, 7)
    assert {"torch", "ale-py", "python"} <= set(json.loads(attributes["provenance"])["software"])
    computed = {"device": "cpu", "precision": "float32", "threads": torch.get_num_threads()}
    assert json.loads(attributes["provenance"])["computed"] == computed
    assert (part.game, part.action_ids, part.hours, part.protocol) == ("breakout", [0, 1, 3, 4], 4, asdict(SHORT))
    assert (part.times, part.slots, part.teacher) == (TIMES, SLOTS, attributes["teacher"])


def test_frames_are_stored_once_and_small(recorded):
    assert recorded.path.stat().st_size < TIMES * SLOTS * 84 * 84 / 10


@pytest.mark.slow
def test_equal_inputs_give_equal_digests_and_parts_differ(teacher, recorded, part, tmp_path, monkeypatch):
    monkeypatch.setattr(play, "AtariVector", RecordingVector)
    with Part(dump(teacher, tmp_path / "again.h5")) as again:
        assert again.digest == part.digest
    with Part(dump(teacher, tmp_path / "part1.h5", part=1)) as other:
        assert other.digest != part.digest
        assert other.teacher == part.teacher
        with h5py.File(recorded.path) as one, h5py.File(other.path) as two:
            assert not set(one["episodes/seed"][...]) & set(two["episodes/seed"][...])
        # Neither the starts nor the exploration repeat.
        assert (other.read("actions", 0, TIMES) != part.read("actions", 0, TIMES)).mean() > 0.2
        for slot in range(SLOTS):
            for mate in range(SLOTS):
                frames = part.read("frames", 0, TIMES)[:, slot], other.read("frames", 0, TIMES)[:, mate]
                assert (frames[0] != frames[1]).any((1, 2)).mean() > 0.5
    with Part(dump(teacher, tmp_path / "seed8.h5", seed=8)) as other:
        assert (other.read("actions", 0, TIMES) != part.read("actions", 0, TIMES)).mean() > 0.2


# What is refused


def truncate(fraction):
    def damage(path):
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * fraction)])

    return damage


def flip_a_byte_of_a_frame(path):
    with h5py.File(path) as file:
        chunk = file["frames"].id.get_chunk_info(3)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(data)


def alter(change):
    def damage(path):
        with h5py.File(path, "r+") as file:
            change(file)

    return damage


def scale_q_values(file):
    file["q_values"][5, 0, 2] += 1e-3


def scale_a_return(file):
    file["episodes/return"][0] += 1


def claim_other_actions(file):
    file.attrs["action_ids"] = [0, 1, 4, 3]


def remove(name):
    def change(file):
        del file[name]

    return change


DAMAGES = {
    **{f"truncated to {percent}%": truncate(percent / 100) for percent in (0, 1, 50, 90, 99.9)},
    "with something appended": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "a flipped byte": flip_a_byte_of_a_frame,
    "altered q_values": alter(scale_q_values),
    "altered return": alter(scale_a_return),
    "other action ids": alter(claim_other_actions),
    **{f"without {name}": alter(remove(name)) for name in ("frames", "q_values", "actions", "episodes/return")},
    "without episodes": alter(remove("episodes")),
    "without protocol": alter(lambda file: file.attrs.pop("protocol")),
    "without action ids": alter(lambda file: file.attrs.pop("action_ids")),
    "without digest": lambda path: path.write_bytes(bytes(512) + path.read_bytes()[512:]),
    "a group for an array": alter(lambda file: (file.pop("actions"), file.create_group("actions"))),
    "not HDF5": lambda path: path.write_bytes(b"\n".join([b"these are not", b"the data"] * 1000)),
    "missing": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


def refusal(path):
    try:
        Part(path).close()
    except DatasetError as error:
        return str(error)
    return None


def assert_one_line_about(path, message):
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1


def assert_refused(path, match=None):
    with pytest.raises(DatasetError, match=match) as caught:
        Part(path)
    assert_one_line_about(path, str(caught.value))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_parts_are_refused_in_one_line(recorded, tmp_path, damage):
    path = shutil.copy(recorded.path, tmp_path / "part.h5")
    DAMAGES[damage](path)
    assert_refused(path)


@pytest.mark.slow
def test_flipped_bits_are_refused_and_never_crash(teacher, tmp_path):
    """HDF5 by itself crashes, or searches for ever, on some flipped bits of its attributes; so try it in a child."""
    path = dump(teacher, tmp_path / "part.h5", play=replace(PLAY, hours_per_part=1, steps_per_hour=16))
    data = path.read_bytes()
    with h5py.File(path) as file:
        attributes = {key: str(value) for key, value in file.attrs.items()}
    flips = [(place, 1 << place % 8) for place in range(0, len(data), 97)]
    for name, value in attributes.items():
        at = data.find(name.encode() + b"\0")
        flips += [(at + offset, 2) for offset in range(40) if at >= 0]
        at = data.find(value.encode()) if len(value) > 8 else -1
        flips += [(at - offset, 1) for offset in range(1, 17) if at >= 0]
    flips = [(place, bit) for place, bit in flips if place < len(data)]
    with Part(path) as part:
        expected = {name: part.read(name, 0, 8) for name in ("frames", *STEP_ARRAYS)}

    def check():
        altered = tmp_path / "altered.h5"
        for place, bit in flips:
            (tmp_path / "last").write_text(f"bit {bit} of byte {place}")
            changed = bytearray(data)
            changed[place] ^= bit
            altered.write_bytes(changed)
            message = refusal(altered)
            if message is not None:
                assert_one_line_about(altered, message)
                continue
            assert place < 512  # the padding of the block before the data
            with Part(altered) as other:
                for name, values in expected.items():
                    assert (other.read(name, 0, 8) == values).all()
        (tmp_path / "last").write_text("done")

    child = os.fork()
    if child == 0:
        faulthandler.disable()  # the parent reports a crash
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(100)
        try:
            check()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert (status, (tmp_path / "last").read_text()) == (0, "done")


@pytest.mark.parametrize("name", ["frames", *STEP_ARRAYS])
def test_other_shapes_and_types_are_refused(recorded, part, tmp_path, name):
    values = part.read(name, 0, TIMES)
    assert_refused(edited(recorded.path, tmp_path / "cut.h5", {name: values[:-1]}), "expected")
    assert_refused(edited(recorded.path, tmp_path / "slot.h5", {name: values[:, :1]}), "expected")
    assert_refused(edited(recorded.path, tmp_path / "type.h5", {name: values.astype("f8")}), "expected")


def test_other_schemas_are_refused(recorded, tmp_path):
    path = tmp_path / "part.h5"
    path.write_bytes(recorded.path.read_bytes().replace(b"teacher_dataset/2", b"teacher_dataset/3", 1))
    assert_refused(path, f"not a part of a teacher data set in the format {SCHEMA}")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["data"] = np.zeros(3)
    assert_refused(tmp_path / "foreign.h5", "format")


@pytest.mark.slow
def test_an_interrupted_dump_leaves_nothing(teacher, tmp_path, monkeypatch):
    class Interrupting(RecordingVector):
        def step(self, actions):
            if len(self.steps) == 100:  # a chunk is already written
                raise KeyboardInterrupt
            return super().step(actions)

    monkeypatch.setattr(play, "AtariVector", Interrupting)
    with pytest.raises(KeyboardInterrupt):
        dump(teacher, tmp_path / "part.h5")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "part.h5").write_text("an earlier part")
    with pytest.raises(KeyboardInterrupt):
        dump(teacher, tmp_path / "part.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["part.h5"]
    assert (tmp_path / "part.h5").read_text() == "an earlier part"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"protocol": "paper2015"}, "trained under short.*wanted under paper2015"),
        ({"game": "qbert"}, "its actions for qbert are not"),
        ({"play": replace(PLAY, steps_per_hour=201)}, r"envs \(2\) must divide steps_per_hour \(201\)"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_play(teacher, tmp_path, wrong, message):
    with pytest.raises(DatasetError, match=message) as caught:
        dump(teacher, tmp_path / "part.h5", **wrong)
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_teachers_with_other_action_ids_are_refused(tmp_path):
    path = tmp_path / "swapped.safetensors"
    agent = Agent(Network((4, 4, 4), 16), {"breakout": [0, 1, 4, 3]})  # as many as Breakout has: only ids tell
    save_agent(path, agent, {"protocol": asdict(SHORT)})
    with pytest.raises(DatasetError, match=re.escape(f"{path}: its actions for breakout")):
        dump(SimpleNamespace(path=path), tmp_path / "part.h5")


# The window


@pytest.fixture(scope="module")
def numbered(recorded, tmp_path_factory):
    """The same part with q_values that tell which time and slot they belong to."""
    q_values = np.zeros((TIMES, SLOTS, 4), np.float32)
    q_values[..., 0], q_values[..., 1] = np.meshgrid(np.arange(TIMES), np.arange(SLOTS), indexing="ij")
    path = edited(recorded.path, tmp_path_factory.mktemp("numbered") / "part.h5", {"q_values": q_values})
    with Part(path) as part:
        yield part


@given(
    hours=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    capacity=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
@example(hours=[0, 1, 2, 3], capacity=2, seed=0)
@example(hours=[3, 0], capacity=1, seed=0)
@settings(max_examples=25, deadline=None)
def test_window_gives_what_the_environment_returned(recorded, numbered, hours, capacity, seed):
    window = Window(numbered, capacity)
    for count, hour in enumerate(hours, start=1):
        window.push(numbered, hour)
        assert window.filled == min(count, capacity)
        observations, q_values = window.sample(64, np.random.default_rng(seed))
        times, slots = q_values[:, 0].long().numpy(), q_values[:, 1].long().numpy()
        assert (observations.numpy() == recorded.observations[times, slots]).all()
        assert set(times // HOUR) <= set(hours[max(0, count - capacity) : count])


def test_stacks_at_the_start_of_an_hour_reach_back(recorded, numbered):
    """The first times of an hour are where a window without context would go wrong; check each of them."""
    window = Window(numbered, 2)
    window.push(numbered, 0)
    window.push(numbered, 2)
    seen = set()
    rng = np.random.default_rng(0)
    while len(seen) < 12:
        observations, q_values = window.sample(256, rng)
        for stack, (time, slot) in zip(observations.numpy(), q_values[:, :2].long().tolist(), strict=True):
            if time % HOUR < 3:
                assert (stack == recorded.observations[time, slot]).all()
                seen.add((time, slot))


def test_the_oldest_hour_leaves(numbered):
    window = Window(numbered, 2)
    memory = window.frames.numel()
    inside = []
    for hour in (0, 1, 2, 3, 0):
        window.push(numbered, hour)
        q_values = window.sample(400, np.random.default_rng(hour))[1]
        inside.append(set((q_values[:, 0] // HOUR).int().tolist()))
    assert inside == [{0}, {0, 1}, {1, 2}, {2, 3}, {3, 0}]
    assert window.frames.numel() == memory  # allocated once


@pytest.mark.parametrize("pushed", [2, 3, 5])
def test_sampling_is_uniform_over_the_hours_inside(numbered, monkeypatch, pushed):
    monkeypatch.setattr("policy_distillation.sliding_window.gather_stacks", lambda *arguments: None)
    window = Window(numbered, 3)
    for number in range(pushed):
        window.push(numbered, number % 4)
    inside = {number % 4 for number in range(max(0, pushed - 3), pushed)}
    q_values = window.sample(60_000, np.random.default_rng(0))[1].long()
    counts = np.zeros((TIMES, SLOTS))
    np.add.at(counts, (q_values[:, 0].numpy(), q_values[:, 1].numpy()), 1)
    expected = 60_000 / (len(inside) * HOUR * SLOTS)
    for hour in range(4):
        mine = counts[hour * HOUR : (hour + 1) * HOUR]
        if hour in inside:
            # Binomial: six standard deviations for each of up to 600 cells.
            assert np.abs(mine - expected).max() < 6 * expected**0.5
        else:
            assert mine.sum() == 0


def test_pixel_moments_are_those_of_the_newest_hour(recorded, tmp_path):
    rng = np.random.default_rng(0)
    brightness = 40 * (np.arange(TIMES) // HOUR) + rng.integers(0, 30, TIMES)
    frames = np.broadcast_to(brightness[:, None, None, None], (TIMES, SLOTS, 84, 84)).astype(np.uint8)
    with Part(edited(recorded.path, tmp_path / "part.h5", {"frames": frames})) as part:
        window = Window(part, 2)
        for hour in (0, 1, 2):
            window.push(part, hour)
            mean, square = window.pixel_moments()
            mine = brightness[hour * HOUR : (hour + 1) * HOUR].astype(np.float64)
            assert mean == pytest.approx(mine.mean(), rel=0.01)
            assert square == pytest.approx((mine**2).mean(), rel=0.01)


FRACTIONS = [(1.0, 1, 100), (0.5, 7, 7), (0.3, 4, 8), (0.04, 1, 4), (0.01, 1, 1)]


@pytest.mark.parametrize(("fraction", "runs", "length"), FRACTIONS)
def test_a_fraction_of_an_hour_is_spread_over_all_of_it(recorded, numbered, fraction, runs, length):
    """Bit for bit what the environment returned, at evenly spaced times of every slot, in less memory."""
    window, whole = Window(numbered, 2, fraction=fraction), Window(numbered, 2)
    for hour in (0, 2):
        window.push(numbered, hour)
    observations, q_values = window.sample(1500, np.random.default_rng(0))
    times, slots = q_values[:, 0].long().numpy(), q_values[:, 1].long().numpy()
    assert (observations.numpy() == recorded.observations[times, slots]).all()
    starts = [hour * HOUR + run * HOUR // runs for hour in (0, 2) for run in range(runs)]
    expected = {start + time for start in starts for time in range(length)}
    assert set(times.tolist()) == expected
    assert set(slots.tolist()) == set(range(SLOTS))
    assert abs(runs * length - fraction * HOUR) <= runs / 2
    assert window.frames.numel() <= whole.frames.numel() * min(1.0, fraction * 11 / 8 + 0.05)
    assert 0 <= Window.size(numbered, 2, fraction) - window.frames.numel() <= 0.01 * window.frames.numel()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("fraction", [1.0, 0.3])
def test_sampling_on_a_gpu_does_not_wait_for_it(recorded, numbered, fraction):
    window = Window(numbered, 2, fraction=fraction, device="cuda")
    window.push(numbered, 0)
    window.push(numbered, 2)
    rng = np.random.default_rng(0)
    window.sample(8, rng)  # warms up
    torch.cuda.set_sync_debug_mode("error")
    try:
        observations, q_values = window.sample(256, rng)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    times, slots = q_values[:, 0].long().cpu().numpy(), q_values[:, 1].long().cpu().numpy()
    assert (observations.cpu().numpy() == recorded.observations[times, slots]).all()


def test_the_example_tells_an_agent_that_knows_a_part_from_one_that_does_not(recorded, teacher, tmp_path, capsys):
    """docs/examples/held_out.py."""
    held_out, other = load_example("held_out"), tmp_path / "agent.safetensors"
    torch.manual_seed(1)
    save_agent(other, Agent(Network((4, 4, 4), 16), teacher.agent.actions), {"protocol": asdict(SHORT)})
    held_out.main(recorded.path, [teacher.path, other], states=300)
    same, apart = (
        {name: float(mean) for name, mean in zip(words[1::2], words[2::2], strict=True)}
        for words in map(str.split, capsys.readouterr().out.splitlines())
    )
    assert same["agreement"] == 1
    assert same["given_up"] == 0
    assert same["kl"] > 0  # only the teacher's side is sharpened
    assert apart["agreement"] < 1
    assert apart["given_up"] > 0
    # By hand, on three states of three actions, of which the agent chooses the teacher's best in the first alone.
    teacher_q = torch.tensor([[0.0, 0.01, -1.0], [0.0, 0.03, -1.0], [0.5, 0.0, 0.0]])
    q_values = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    means = held_out.compare(lambda block, game: q_values, "breakout", torch.zeros(3, 4, 84, 84), teacher_q)
    p = np.exp(teacher_q.double().numpy() / 0.01)
    p /= p.sum(1, keepdims=True)
    q = np.exp(q_values.double().numpy())
    q /= q.sum(1, keepdims=True)
    assert means["kl"] == pytest.approx((p * np.log(np.maximum(p, 1e-300) / q)).sum(1).mean(), rel=1e-5)
    assert means["agreement"] == pytest.approx(1 / 3)
    assert means["given_up"] == pytest.approx((0 + 0.03 + 0.5) / 3)
