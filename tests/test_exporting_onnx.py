"""Agents in ONNX: the same outputs, described by the file itself; in eight bits, nearly the same choices."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import ROOT
from policy_distillation.__main__ import main
from policy_distillation.checkpoints import load_agent, save_agent
from policy_distillation.evaluate import Evaluation, play_episodes
from policy_distillation.exporting import ExportError, int8
from policy_distillation.exporting.deployment import BATCH, markdown, measure, read_csv, write_csv
from policy_distillation.exporting.int8 import quantise, recorded
from policy_distillation.exporting.onnx import FORMAT, OPSET, OnnxAgent, export_onnx
from policy_distillation.files import file_digest
from policy_distillation.networks import Agent, Network
from policy_distillation.parts import Part
from policy_distillation.protocols import PROTOCOLS
from policy_distillation.readouts import Readout, Support
from policy_distillation.recording import Dataset, dump_part

torch.set_num_threads(1)

TEACHER = ROOT / "resources/teachers/freeway/agent.safetensors"
STUDENT = ROOT / "resources/students/pong/net3/agent.safetensors"
PONG = (0, 1, 3, 4, 11, 12)


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """A minute of the teacher's play."""
    path = tmp_path_factory.mktemp("data") / "part0.h5"
    dump_part(TEACHER, "freeway", "paper2015", 0, Dataset(1, 800, 4, 0.05), 0, path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "freeway.onnx"
    agent, metadata = load_agent(TEACHER)
    export_onnx(agent, metadata, path)
    return path


@pytest.fixture(scope="module")
def quantised(exported, part, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "freeway.onnx"
    return path, quantise(exported, part, path, int8.players(TEACHER, {}))


def frames(path, count=256):
    with Part(path) as part:
        return recorded(part, 0, part.times, count, np.random.default_rng(1))


def test_outputs_on_recorded_frames_are_those_of_torch(exported, part):
    agent, _ = load_agent(TEACHER)
    expected = agent.q_values(frames(part), "freeway")
    found = OnnxAgent(exported).q_values(frames(part), "freeway")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))
    assert len(set(expected.argmax(1))) > 1, "a constant would pass"
    np.testing.assert_allclose(OnnxAgent(exported).q_values(frames(part)[:1], "freeway"), expected[:1], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "readout"),
    [
        (Network((8, 8, 8), 16, controller=8, layer_norm=True), Readout("logits", "sample")),
        (Network((8, 8), 16, kernels=(8, 4), strides=(4, 2), padding="same"), Readout(support=Support(-10, 10, 51))),
    ],
)
def test_every_kind_of_network_can_be_exported(network, readout, tmp_path, part):
    torch.manual_seed(0)
    agent = Agent(network, {"pong": PONG, "freeway": (0, 2, 5)}, {"pong": readout})
    export_onnx(agent.single("pong"), {"protocol": {"name": "x"}, "digest": "0"}, tmp_path / "a.onnx")
    exported = OnnxAgent(tmp_path / "a.onnx")
    expected = agent.q_values(frames(part), "pong")
    assert expected.std() > 1e-4, "a constant would pass"
    np.testing.assert_allclose(exported.q_values(frames(part), "pong"), expected, rtol=0, atol=1e-5)
    assert exported.readouts == {"pong": readout}


def test_outputs_without_an_action_are_refused(exported, part, tmp_path):
    """An emulator that is given an action that it does not have never answers."""
    model = onnx.load(str(exported))
    for entry in model.metadata_props:
        if entry.key == "action_ids":
            entry.value = "[0, 2]"
    onnx.save_model(model, str(tmp_path / "wide.onnx"))
    with pytest.raises(ExportError, match=r"wide.onnx: its outputs are \(1, 3\), expected \(1, 2\) for its action_ids"):
        OnnxAgent(tmp_path / "wide.onnx").q_values(frames(part)[:1], "freeway")


def test_the_file_describes_itself(exported):
    metadata = load_agent(TEACHER)[1]
    found = OnnxAgent(exported).metadata
    assert found["format"] == FORMAT
    assert (found["game"], found["action_ids"], found["readout"]["outputs"]) == ("freeway", [0, 2, 5], "q_values")
    assert (found["protocol"], found["agent"]) == (metadata["protocol"], metadata["digest"])
    model = onnx.load(str(exported))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    tensor = model.graph.input[0].type.tensor_type
    assert tensor.elem_type == onnx.TensorProto.UINT8
    assert [side.dim_param or side.dim_value for side in tensor.shape.dim] == ["batch", 4, 84, 84]
    assert list(exported.parent.iterdir()) == [exported]
    assert str(ROOT).encode() not in exported.read_bytes()


@pytest.mark.slow
def test_the_graph_is_the_network_and_nothing_else(exported):
    kinds = Counter(node.op_type for node in onnx.load(str(exported)).graph.node)
    assert kinds == {"Cast": 1, "Conv": 3, "Reshape": 1, "Gemm": 2, "Relu": 4}


def test_an_exported_agent_plays_the_same_games(exported, monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "short", replace(PROTOCOLS["paper2015"], name="short", max_episode_frames=800))
    games = [
        play_episodes(player, "freeway", "short", Evaluation(4, 4, 0.05), 3)
        for player in (load_agent(TEACHER)[0], OnnxAgent(exported))
    ]
    assert [asdict(episode) for episode in games[0]] == [asdict(episode) for episode in games[1]]
    assert sum(episode.episode_return for episode in games[0]) > 0


def test_the_program_in_the_docs_acts(exported, part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(exported, "student.onnx")
    (program,) = re.findall(r"```python\n(import json, numpy.*?)```", (ROOT / "docs/using.md").read_text(), re.S)
    names = {"observations": frames(part)}
    exec(program, names)
    best, _ = load_agent(TEACHER)[0].predict(frames(part), deterministic=True)
    assert names["actions"] == [(0, 2, 5)[action] for action in best]


# Eight bits


@pytest.mark.slow
def test_eight_bits_keep_most_choices_and_a_quarter_of_the_bytes(exported, part, quantised):
    path, kept = quantised
    assert path.stat().st_size < 0.3 * exported.stat().st_size
    assert (kept.outputs, kept.observations) == ("q_values", int8.CHECK)
    assert 0.9 < kept.agreement < 1
    both = [OnnxAgent(file).q_values(frames(part, 1024), "freeway") for file in (exported, path)]
    assert (both[0].argmax(1) == both[1].argmax(1)).mean() == pytest.approx(kept.agreement, abs=0.03)
    assert (both[0] != both[1]).any()
    described = OnnxAgent(path).metadata
    with Part(part) as opened:
        assert described["int8"] == {
            "dataset": opened.digest,
            "played_by": "itself",
            "player": file_digest(TEACHER),
            "observations": int8.CALIBRATION,
            "seed": 0,
            "agreement": round(kept.agreement, 4),
        }
    assert described["agent"] == OnnxAgent(exported).metadata["agent"]


def test_pixels_lose_nothing_and_the_last_layer_stays_as_it_is(quantised):
    graph = onnx.load(str(quantised[0])).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    first = next(node for node in graph.node if node.op_type == "Conv")
    pixels = makers[makers[first.input[0]].input[0]]
    assert (pixels.op_type, float(values[pixels.input[1]]), int(values[pixels.input[2]])) == ("QuantizeLinear", 1.0, 0)
    assert values[makers[first.input[1]].input[0]].dtype == np.int8
    last = makers["outputs"]
    assert last.op_type == "Gemm"
    assert values[last.input[1]].dtype == np.float32


@pytest.mark.slow
def test_equal_seeds_give_equal_files(exported, part, quantised, tmp_path):
    assert quantise(exported, part, tmp_path / "again.onnx", int8.players(TEACHER, {})) == quantised[1]
    assert (tmp_path / "again.onnx").read_bytes() == quantised[0].read_bytes()


def test_q_values_come_with_a_warning_and_a_policy_does_not():
    assert "WARNING" in int8.Kept("q_values", 0.98, 10, "teacher").describe()
    said = "int8 keeps 98.0% of the choices in 10 observations of another agent's play"
    assert int8.Kept("logits", 0.98, 10, "another agent").describe() == said


@pytest.mark.slow
@pytest.mark.parametrize("played_by", ["teacher", "another agent"])
def test_the_file_says_whose_play_it_was_calibrated_on(exported, part, tmp_path, played_by):
    """The part's player is the student's teacher, or nobody that the student has to do with."""
    teachers = {"freeway": file_digest(TEACHER)} if played_by == "teacher" else {"freeway": "0" * 64}
    kept = quantise(exported, part, tmp_path / "int8.onnx", int8.players(STUDENT, {"teachers": teachers}))
    assert kept.played_by == OnnxAgent(tmp_path / "int8.onnx").metadata["int8"]["played_by"] == played_by


def test_data_of_another_game_is_refused(part, tmp_path):
    agent = Agent(Network((4, 4, 4), 8), {"pong": PONG})
    export_onnx(agent, {"protocol": {}, "digest": "0"}, tmp_path / "pong.onnx")
    with pytest.raises(ExportError, match=r"data of freeway .* cannot calibrate an agent of pong"):
        quantise(tmp_path / "pong.onnx", part, tmp_path / "int8.onnx", {})
    assert not (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07\x12\x00"])
def test_other_files_are_refused_in_one_line(content, tmp_path):
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(ExportError) as refused:
        OnnxAgent(tmp_path / "a.onnx")
    assert str(refused.value).startswith(f"{tmp_path / 'a.onnx'}: not an agent in ONNX (")
    assert "\n" not in str(refused.value)
    with pytest.raises(ExportError, match="no such file"):
        OnnxAgent(tmp_path / "b.onnx")


def test_somebody_elses_model_is_refused(exported, tmp_path):
    model = onnx.load(str(exported))
    onnx.helper.set_model_props(model, {"format": json.dumps("other/1")})
    onnx.save(model, str(tmp_path / "a.onnx"))
    with pytest.raises(ExportError, match=f"its format is not {FORMAT}"):
        OnnxAgent(tmp_path / "a.onnx")


# What it costs and gains


@pytest.mark.slow
def test_all_forms_are_scored_and_timed(exported, quantised, part, tmp_path, monkeypatch):
    monkeypatch.setattr("policy_distillation.exporting.deployment.SECONDS", 0.01)
    short = replace(PROTOCOLS["paper2015"], max_episode_frames=800)
    monkeypatch.setitem(PROTOCOLS, "paper2015", short)
    rows = measure(TEACHER, "freeway", [exported, quantised[0]], part, Evaluation(4, 4, 0.05), 0)
    assert [row.form for row in rows] == ["torch", "onnx", "onnx int8"]
    assert [row.bytes for row in rows] == [file.stat().st_size for file in (TEACHER, exported, quantised[0])]
    assert rows[0].score == rows[1].score > 0
    assert rows[0].agreement == rows[1].agreement == 1 > rows[2].agreement > 0.9
    for row in rows:
        assert row.low <= row.score <= row.high
        assert row.latency_ms > 0
        assert row.per_second > 1000 / row.latency_ms / BATCH
    write_csv(rows, tmp_path / "a.csv")
    assert read_csv(tmp_path / "a.csv") == rows
    assert markdown(rows).count("\n") == 2 + len(rows)
    led = Evaluation(4, 4, 0.05, starts="teacher", teacher_steps=150)  # of 200 steps
    after = measure(TEACHER, "freeway", [exported], part, led, 0, load_agent(TEACHER)[0])
    assert rows[0].score > after[0].score == after[1].score > 0


# The command


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["policy_distillation", *map(str, arguments)])
    main()
    return capsys.readouterr().out


@pytest.mark.slow
def test_the_command_writes_what_can_be_scored(part, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("policy_distillation.exporting.deployment.SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    said = run(monkeypatch, capsys, "export", TEACHER, "--to", "onnx", "--int8", "--dataset", part)
    assert "WARNING" in said
    assert re.search(r"one core: \d+\.\d\d ms for an observation, [\d,]+ a second in batches of 64\n", said)
    assert f"written to freeway_int8.onnx, {Path('freeway_int8.onnx').stat().st_size:,} bytes" in said
    assert "int8" in json.loads(run(monkeypatch, capsys, "inspect", "freeway_int8.onnx"))
    short = replace(PROTOCOLS["paper2015"], max_episode_frames=400)
    monkeypatch.setitem(PROTOCOLS, "paper2015", short)
    said = run(monkeypatch, capsys, "evaluate", "freeway_int8.onnx", "--episodes", 16)
    assert said.startswith("freeway: mean return")


@pytest.mark.slow
@pytest.mark.parametrize("played_by", ["itself", "teacher"])
def test_eight_bits_need_no_data_set(played_by, tmp_path, monkeypatch, capsys):
    """Without one a little play is recorded, of the teacher where its file is named; the file says whose it was."""
    monkeypatch.setattr("policy_distillation.exporting.deployment.SECONDS", 0.01)
    monkeypatch.setattr(int8, "SHORT", replace(int8.SHORT, steps_per_hour=800))
    monkeypatch.chdir(tmp_path)
    teacher = ROOT / "resources/teachers/pong/agent.safetensors"
    teachers = ["--teachers", TEACHER, teacher] if played_by == "teacher" else []
    said = run(monkeypatch, capsys, "export", STUDENT, "--to", "onnx", "--int8", *teachers)
    player = teacher if teachers else STUDENT
    assert said.startswith(f"no --dataset: {player} plays a minute of eight games to calibrate on\nint8 keeps ")
    described = OnnxAgent("pong_int8.onnx").metadata["int8"]
    assert (described["played_by"], described["player"]) == (played_by, file_digest(player))
    assert described["agreement"] > 0.9
    assert [path.name for path in tmp_path.iterdir()] == ["pong_int8.onnx"]


def test_wrong_commands_end_in_one_line(part, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    agent = Agent(Network((4, 4, 4), 8), {"pong": PONG, "freeway": (0, 2, 5)})
    save_agent(Path("two.safetensors"), agent, {"protocol": asdict(PROTOCOLS["paper2015"])})
    save_agent(Path("old.safetensors"), agent.single("pong"), {"protocol": "paper2015"})
    for arguments, message in (
        (["old.safetensors", "--to", "onnx"], "do not say under which protocol"),
        ([TEACHER, "--to", "onnx", "--dataset", part], "--dataset, a part of .*, belongs to --int8"),
        ([STUDENT, "--to", "onnx", "--int8", "--teachers", TEACHER], "not the teacher of pong, whose SHA-256 is 3e70"),
        ([TEACHER, TEACHER, "--to", "onnx"], "2 files; --to onnx takes one agent"),
        (["--to", "onnx"], "name a file"),
        (["two.safetensors", "--to", "onnx"], "plays freeway, pong: choose one with --game"),
        (["two.safetensors", "--to", "onnx", "--game", "qbert"], "does not play qbert"),
        ([part, "--to", "onnx"], "not a readable safetensors file"),
    ):
        with pytest.raises(SystemExit, match=message):
            run(monkeypatch, capsys, "export", *arguments)
    assert not list(tmp_path.glob("*.onnx"))


def test_a_missing_package_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(SystemExit, match=r"--to onnx needs onnx: pip install 'policy-distillation\[onnx\]'"):
        run(monkeypatch, capsys, "export", TEACHER, "--to", "onnx")
