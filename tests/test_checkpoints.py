"""Agents on disk: exact round trips, atomic writes, one clear line for every bad file."""

import json
import pickle
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from conftest import ROOT
from policy_distillation.checkpoints import load_agent, save_agent
from policy_distillation.files import atomic_path, file_digest
from policy_distillation.header import CheckpointError, read_metadata
from policy_distillation.networks import Agent, Network
from torch.utils._python_dispatch import TorchDispatchMode

ACTIONS = {"pong": [0, 1, 3, 4, 11, 12], "qbert": [0, 1, 2, 3, 4, 5]}
NETWORK = Network((4, 4, 4), 8, controller=4)
SIZES = {"channels": [4, 4, 4], "hidden": 8, "controller": 4}


def make_agent(seed=0, network=NETWORK):
    torch.manual_seed(seed)
    return Agent(network, ACTIONS)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "agent.safetensors"


@pytest.fixture
def saved(path):
    save_agent(path, make_agent(), {"seed": 3})
    return path


def tensors(agent):
    return {name: tensor.numpy() for name, tensor in agent.state_dict().items()}


def assert_refused(path, function=load_agent):
    """One line that names the file, whatever is wrong with it."""
    with pytest.raises(CheckpointError) as caught:
        function(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    return message


def rewrite(path, weights=None, raw=None, **changes):
    """The same file with other tensors or metadata; a change to None leaves the key out."""
    metadata = read_metadata(path) | changes
    metadata = {key: value for key, value in metadata.items() if value is not None}
    weights = safetensors.torch.load_file(path) if weights is None else weights
    safetensors.torch.save_file(weights, path, {"policy_distillation": json.dumps(metadata) if raw is None else raw})
    return path


@pytest.mark.parametrize("network", [NETWORK, Network((8, 4, 6), 5)])
def test_round_trip_is_exact(path, network):
    agent = make_agent(network=network)
    save_agent(path, agent, {"kind": "dqn", "settings": {"rate": 0.1}, "seed": 3})
    loaded, metadata = load_agent(path)
    assert loaded.network == network
    assert list(loaded.actions) == list(ACTIONS)
    assert {game: list(ids) for game, ids in loaded.actions.items()} == ACTIONS
    assert metadata == read_metadata(path)
    assert (metadata["kind"], metadata["settings"], metadata["seed"]) == ("dqn", {"rate": 0.1}, 3)
    assert not loaded.training
    for name, tensor in tensors(agent).items():
        np.testing.assert_array_equal(tensors(loaded)[name], tensor)


def test_saving_a_loaded_agent_gives_the_same_file(saved, tmp_path):
    agent, metadata = load_agent(saved)
    save_agent(tmp_path / "again.safetensors", agent, metadata)
    assert file_digest(tmp_path / "again.safetensors") == file_digest(saved)


def test_metadata_cannot_override_what_the_file_is(path):
    save_agent(path, make_agent(), {"format": "other", "network": None, "actions": {}})
    assert load_agent(path)[0].network == NETWORK


def test_input_scaling_is_folded_when_saved(path):
    agent = make_agent()
    agent.shift.fill_(40.0)
    agent.scale.fill_(0.03)
    observations = np.random.default_rng(0).integers(0, 256, (3, 4, 84, 84), dtype=np.uint8)
    before, expected = tensors(agent), agent.q_values(observations, "pong")
    save_agent(path, agent, {})
    loaded, _ = load_agent(path)
    assert loaded.shift.item() == 0
    assert loaded.scale.item() == pytest.approx(1 / 255)
    np.testing.assert_allclose(loaded.q_values(observations, "pong"), expected, rtol=1e-4, atol=1e-4)
    assert not np.allclose(tensors(loaded)["conv1.weight"], before["conv1.weight"], rtol=0.1)
    # The agent in memory goes on training as it was.
    assert (agent.shift.item(), agent.scale.item()) == (40.0, pytest.approx(0.03))
    np.testing.assert_array_equal(tensors(agent)["conv1.weight"], before["conv1.weight"])


def test_atomic_path_replaces_on_success(tmp_path):
    path = tmp_path / "new" / "folder" / "file.csv"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == path.suffix
        temporary.write_text("one")
        assert not path.exists()
    with atomic_path(path) as temporary:
        temporary.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_is_named_as_it_was_asked_for(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as refused, atomic_path(tmp_path / "folder") as temporary:
        temporary.write_text("new")
    assert (refused.value.filename, refused.value.filename2) == (str(tmp_path / "folder"), None)
    with pytest.raises(OSError, match=r"/sys/file'$"), atomic_path(Path("/sys/file")) as temporary:
        temporary.write_text("new")
    with pytest.raises(FileNotFoundError, match=r"other'$"), atomic_path(tmp_path / "file"):
        (tmp_path / "other").read_text()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_atomic_path_keeps_the_old_file_on_failure(tmp_path, error):
    path = tmp_path / "file.csv"
    path.write_text("old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_save_keeps_the_old_agent(saved):
    digest = file_digest(saved)
    with pytest.raises(TypeError):
        save_agent(saved, make_agent(1), {"settings": object()})
    assert file_digest(saved) == digest
    assert list(saved.parent.iterdir()) == [saved]


def test_missing_file_and_folder(tmp_path):
    for function in (load_agent, read_metadata):
        assert "no such file" in assert_refused(tmp_path / "nothing.safetensors", function)
        assert_refused(tmp_path, function)


class Bomb:
    """Unpickling it ends the test, and no ``except Exception`` stops that."""

    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"episode,return\n1,2\n", b"text " * 1000, bytes(8), bytes(4096), b"\xff" * 4096, pickle.dumps(Bomb())],
    ids=["empty", "byte", "csv", "text", "eight zeros", "zeros", "ones", "pickle"],
)
def test_foreign_bytes(path, content):
    path.write_bytes(content)
    assert_refused(path)
    assert_refused(path, read_metadata)


def test_pickled_agent(path):
    torch.save(make_agent().state_dict(), path)
    assert_refused(path)


def test_truncated_at_any_length(saved):
    content = saved.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for length in (0, 7, 8, 9, 200, header - 1, header, header + 1, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:length])
        assert_refused(saved)
    saved.write_bytes(content + b"\0")
    assert_refused(saved)


def test_a_header_with_any_byte_altered_loads_or_is_refused(saved):
    content = saved.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    generator = random.Random(0)
    refused = 0
    for _ in range(400):
        altered = bytearray(content)
        altered[generator.randrange(header)] ^= 1 << generator.randrange(8)
        saved.write_bytes(altered)
        try:
            load_agent(saved)
        except CheckpointError:
            assert_refused(saved)
            refused += 1
    assert refused > 300  # what may pass is a changed value, such as an action's id


def test_foreign_safetensors(path):
    for metadata in (None, {"format": "pt"}, {"policy_distillation": "{"}, {"policy_distillation": "[1]"}):
        safetensors.torch.save_file({"weight": torch.zeros(3)}, path, metadata)
        assert_refused(path)
        assert_refused(path, read_metadata)


@pytest.mark.parametrize("format_", ["policy_distillation.agent/2", 1, None])
def test_other_formats(saved, format_):
    assert "policy_distillation.agent/1" in assert_refused(rewrite(saved, format=format_))


def test_deeply_nested_metadata(saved):
    assert_refused(rewrite(saved, raw="[" * 100_000))


@pytest.mark.parametrize(
    "changes",
    [
        {"network": None},
        {"network": 7},
        {"network": SIZES | {"channels": [4, 4]}},
        {"network": SIZES | {"channels": [4, 4, 5]}},
        {"network": SIZES | {"channels": "444"}},
        {"network": SIZES | {"channels": [4, -4, 4]}},
        {"network": SIZES | {"hidden": 0}},
        {"network": SIZES | {"hidden": 9}},
        {"network": SIZES | {"hidden": 8.0}},
        {"network": SIZES | {"hidden": "8"}},
        {"network": SIZES | {"hidden": True}},
        {"network": SIZES | {"controller": None}},
        {"network": SIZES | {"controller": 5}},
        {"actions": None},
        {"actions": []},
        {"actions": {}},
        {"actions": {"pong": ACTIONS["pong"]}},
        {"actions": ACTIONS | {"breakout": [0, 1, 3, 4]}},
        {"actions": ACTIONS | {"pong": [0, 1]}},
        {"actions": ACTIONS | {"pong": []}},
        {"actions": ACTIONS | {"pong": list(range(19))}},
        {"actions": ACTIONS | {"pong": [0, 1, 2, 3, 4, "fire"]}},
        {"actions": ACTIONS | {"pong": [0, 1, 2, 3, 4, float("inf")]}},
        {"actions": ACTIONS | {"pong.pong": [0]}},
        {"actions": ACTIONS | {"keys": [0]}},
        {"actions": ACTIONS | {"ping\npong": [0]}},
    ],
    ids=str,
)
def test_metadata_that_does_not_fit(saved, changes):
    assert_refused(rewrite(saved, **changes))


def test_more_actions_than_a_console_has(path):
    save_agent(path, Agent(NETWORK, {"pong": range(19)}), {})
    assert_refused(path)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that was really allocated."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.device.type != "meta":
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize(
    "sizes",
    [
        {"channels": [2048, 2048, 4], "hidden": 8, "controller": None},
        {"channels": [4, 4, 4], "hidden": 60_000, "controller": 1_000},
        {"channels": [10**12, 4, 4], "hidden": 8, "controller": None},
        {"channels": [4, 4, 4], "hidden": 10**30, "controller": None},
        {"channels": [4, 4, 4], "hidden": 8, "controller": 10**9},
    ],
    ids=str,
)
def test_huge_layers_are_refused_before_memory_is_asked_for(saved, sizes):
    path = rewrite(saved, network=sizes)
    with Largest() as largest:
        assert_refused(path)
    assert largest.elements < 100_000


def test_tensors_that_do_not_fit(saved):
    weights = safetensors.torch.load_file(saved)
    missing = {name: tensor for name, tensor in weights.items() if name != "conv2.bias"}
    flat = weights | {"conv2.weight": weights["conv2.weight"].flatten()}
    for wrong in (missing, flat, weights | {"extra": torch.zeros(1)}, {}):
        assert_refused(rewrite(saved, wrong))
        load_agent(rewrite(saved, weights))


def test_a_tensor_whose_name_has_two_lines(saved):
    assert_refused(rewrite(saved, safetensors.torch.load_file(saved) | {"ex\ntra": torch.zeros(1)}))


def test_tensors_of_another_type(saved):
    weights = safetensors.torch.load_file(saved)
    assert_refused(rewrite(saved, {name: tensor.view(torch.int32) for name, tensor in weights.items()}))


def test_file_digest(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert file_digest(tmp_path / "abc") == expected


@pytest.mark.slow
def test_whoever_reads_only_the_head_of_a_description_sees_no_traceback():
    agent = ROOT / "resources/students/pong/net3/agent.safetensors"
    command = f"set -o pipefail; {sys.executable} -m policy_distillation inspect {agent} | true"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")
