"""Agents from elsewhere: every layout against an independent forward pass, mappings, reports, hostile files."""

import contextlib
import gzip
import io
import itertools
import json
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import msgpack
import numpy as np
import pytest
import safetensors.numpy
import torch
import yaml
from numpy.lib.stride_tricks import sliding_window_view
from policy_distillation import importing
from policy_distillation.__main__ import import_, main
from policy_distillation.checkpoints import load_agent, save_agent
from policy_distillation.files import file_digest
from policy_distillation.header import CheckpointError, read_metadata
from policy_distillation.importing import containers, pickle_limits
from policy_distillation.importing.agents import differences, download, import_agent
from policy_distillation.importing.containers import AgentImportError, read_tensors
from policy_distillation.importing.declarations import Convolution, Declaration, Dense, Stream
from policy_distillation.importing.libraries import LIBRARIES
from policy_distillation.importing.mappings import read_declaration
from policy_distillation.networks import Agent, Network
from policy_distillation.protocols import PROTOCOLS
from test_hostile_files import in_a_child
from torch import nn

PONG = [0, 1, 3, 4, 11, 12]


def observations(batch=3):
    """Noise, from dark to bright."""
    noise = np.random.default_rng(0).integers(0, 256, (batch, 4, 84, 84))
    return (noise * (1 + np.arange(batch))[:, None, None, None] // batch).astype(np.uint8)


def weights(rng, shapes):
    """Tensors whose activations neither die nor explode, biases included."""
    return {
        name: rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5 if len(shape) > 1 else 0.3, shape).astype("f4")
        for name, shape in shapes.items()
    }


def livelier(model):
    """torch's initialisation is so timid that any two images have nearly the same Q-values."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 6**0.5
    return model


def flax_shapes(actions, same):
    pixels = 11 * 11 * 64 if same else 7 * 7 * 64
    return {
        "Conv_0": {"kernel": (8, 8, 4, 32), "bias": (32,)},
        "Conv_1": {"kernel": (4, 4, 32, 64), "bias": (64,)},
        "Conv_2": {"kernel": (3, 3, 64, 64), "bias": (64,)},
        "Dense_0": {"kernel": (pixels, 512), "bias": (512,)},
        "Dense_1": {"kernel": (512, actions), "bias": (actions,)},
    }


def flax_parameters(actions=6, same=False, seed=0):
    rng = np.random.default_rng(seed)
    return {layer: weights(rng, shapes) for layer, shapes in flax_shapes(actions, same).items()}


def flax_forward(parameters, x, same, divisor=255.0):
    """What flax computes, in numpy and float64: images (batch, row, column, channel), filters HWIO."""
    x = x.transpose(0, 2, 3, 1).astype(np.float64) / divisor
    for layer, stride in (("Conv_0", 4), ("Conv_1", 2), ("Conv_2", 1)):
        kernel, bias = parameters[layer]["kernel"].astype(np.float64), parameters[layer]["bias"]
        size = len(kernel)
        if same:
            total = max((-(-x.shape[1] // stride) - 1) * stride + size - x.shape[1], 0)
            pad = (total // 2, total - total // 2)
            x = np.pad(x, ((0, 0), pad, pad, (0, 0)))
        windows = sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
        x = np.maximum(np.einsum("brcnij,ijno->brco", windows, kernel, optimize=True) + bias, 0)
    x = x.reshape(len(x), -1)
    x = np.maximum(x @ parameters["Dense_0"]["kernel"] + parameters["Dense_0"]["bias"], 0)
    return x @ parameters["Dense_1"]["kernel"] + parameters["Dense_1"]["bias"]


def assert_same_q_values(agent, game, expected, x=None):
    got = agent.q_values(observations() if x is None else x, game)
    assert np.abs(expected - expected.mean(0)).max() > 1e-2, "a constant would pass"
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * max(1.0, np.abs(expected).max()))


def flax_msgpack(tree):
    """flax.serialization.to_bytes, without flax: arrays are extension 1 around (shape, dtype, bytes)."""

    def pack(array):
        return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True))

    return msgpack.packb(tree, default=pack, strict_types=True)


def nature(actions=6, seed=0):
    torch.manual_seed(seed)
    convolutions = (nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1))
    dense = (nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, actions))
    return livelier(nn.Sequential(*convolutions, nn.ReLU(), *dense))


def renamed(model, names, prefix=""):
    """A Sequential's tensors under other layer names."""
    return {
        f"{prefix}{names[key.split('.')[0]]}.{key.split('.')[1]}": tensor for key, tensor in model.state_dict().items()
    }


CLEANRL = {number: f"network.{number}" for number in "02479"}
SB3 = {number: f"q_net.features_extractor.cnn.{number}" for number in "024"}
SB3 |= {"7": "q_net.features_extractor.linear.0", "9": "q_net.q_net.0"}
PFRL = {"0": "0.layers.0", "2": "0.layers.1", "4": "0.layers.2", "7": "0.output", "9": "1"}
TIANSHOU = {"0": "net.0.0", "2": "net.0.2", "4": "net.0.4", "7": "net.1", "9": "net.3"}


def torch_forward(model, x=None, divisor=255.0):
    x = torch.from_numpy(observations() if x is None else x).double() / divisor
    return model.double()(x).detach().numpy()


# Each library's files, as its sources write them. In test_importing_libraries.py the libraries themselves write.


def test_cleanrl_torch(tmp_path):
    model = nature()
    torch.save(renamed(model, CLEANRL), tmp_path / "dqn_atari.cleanrl_model")
    agent, metadata = import_agent({"from": "cleanrl", "path": str(tmp_path / "dqn_atari.cleanrl_model")}, "pong")
    assert_same_q_values(agent, "pong", torch_forward(model))
    assert agent.actions == {"pong": tuple(PONG)}
    assert metadata["protocol"]["name"] == "cleanrl"
    assert metadata["protocol"]["fire_on_reset"]
    imported = metadata["imported"]
    assert (imported["from"], imported["container"], imported["input_divisor"]) == ("cleanrl", "torch", 255)
    assert len(imported["digest"]) == 64


def test_cleanrl_jax(tmp_path):
    parameters = flax_parameters()
    path = tmp_path / "dqn_atari_jax.cleanrl_model"
    path.write_bytes(flax_msgpack({"params": parameters}))
    assert "jax" not in sys.modules or os.environ.get("JAX_LOADED")
    for source in ({"from": "cleanrl", "path": str(path)}, {"path": str(path)}):
        agent, metadata = import_agent(source, "pong")
        assert_same_q_values(agent, "pong", flax_forward(parameters, observations(), same=False))
        assert metadata["imported"]["container"] == "flax msgpack"


class FrozenDict:
    """Stands for flax's class of the same name, which pickles as itself around a plain dictionary."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return FrozenDict, (self.content,)


class ScaleByAdamState:
    def __init__(self, mu):
        self.mu = mu


FrozenDict.__module__, ScaleByAdamState.__module__ = "flax.core.frozen_dict", "optax._src.transform"


@pytest.fixture
def jax_modules(monkeypatch):
    """Lets pickles name the classes of libraries that are not installed."""
    for cls in (FrozenDict, ScaleByAdamState):
        parts = cls.__module__.split(".")
        for depth in range(1, len(parts) + 1):
            name = ".".join(parts[:depth])
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setattr(sys.modules[name], cls.__name__, cls, raising=False)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.usefixtures("jax_modules")
def test_dopamine(tmp_path, protocol, nested):
    parameters = flax_parameters(same=True)
    parameters["Dense_0"]["kernel"] = np.asfortranarray(parameters["Dense_0"]["kernel"])
    parameters["Conv_0"]["bias"] = parameters["Conv_0"]["bias"].astype(">f4")
    content = {"params": parameters} if nested else parameters
    checkpoint = {
        "state": None,
        "training_steps": np.int64(3),
        "online_params": FrozenDict(content),
        "target_params": FrozenDict(flax_parameters(same=True, seed=1)),
        "optimizer_state": (ScaleByAdamState({"mu": np.ones(3, "f4")}), np.zeros(2)),
        "logs": [],
    }
    path = tmp_path / "ckpt.199"
    path.write_bytes(pickle.dumps(checkpoint, protocol))
    agent, metadata = import_agent({"from": "dopamine", "path": str(path)}, "pong")
    assert agent.network.padding == "same"
    assert agent.hidden.in_features == 7744
    assert_same_q_values(agent, "pong", flax_forward(parameters, observations(), same=True))
    assert metadata["protocol"]["repeat_action_probability"] == 0.25
    save_agent(tmp_path / "agent.safetensors", agent, metadata)
    loaded, _ = load_agent(tmp_path / "agent.safetensors")
    assert loaded.network == agent.network
    np.testing.assert_array_equal(loaded.q_values(observations(), "pong"), agent.q_values(observations(), "pong"))


def sb3_zip(path, model, policy_kwargs="{}", extra=(), observations="uint8"):
    target = {f"q_net_target.{name.removeprefix('q_net.')}": torch.zeros(1) for name in renamed(model, SB3)}
    buffer = io.BytesIO()
    torch.save(OrderedDict(renamed(model, SB3) | target), buffer)
    with zipfile.ZipFile(path, "w") as archive:
        settings = f'"policy_kwargs": {policy_kwargs}, "observation_space": {{"dtype": "{observations}"}}'
        archive.writestr("data", f'{{{settings}, "policy_class": {{":serialized:": "gAWV"}}}}')
        archive.writestr("policy.pth", buffer.getvalue())
        archive.writestr("policy.optimizer.pth", b"never read")
        archive.writestr("_stable_baselines3_version", "2.9.2\n")
        for name, content in extra:
            archive.writestr(name, content)
    return str(path)


@pytest.mark.parametrize(
    ("settings", "divisor"), [("{}", 255.0), ('{"normalize_images": false}', 1.0), ("null", 255.0)]
)
def test_stable_baselines3(tmp_path, settings, divisor):
    model = nature(4)
    path = sb3_zip(tmp_path / "model.zip", model, settings)
    agent, metadata = import_agent({"from": "sb3", "path": path}, "breakout")
    assert_same_q_values(agent, "breakout", torch_forward(model, divisor=divisor))
    assert metadata["imported"]["facts"]["stable_baselines3"] == "2.9.2"
    assert metadata["imported"]["input_divisor"] == divisor
    assert (metadata["protocol"]["name"], metadata["imported"]["driven_otherwise"]) == ("sb3", {})


def test_what_an_environment_scaled_before_the_network_saw_it_must_be_told(tmp_path):
    """Stable-Baselines3's normalize_images: false, of floats: usually they are pixels / 255 already."""
    model = nature(4)
    path = sb3_zip(tmp_path / "model.zip", model, '{"normalize_images": false}', observations="float32")
    with pytest.raises(AgentImportError, match="give input_divisor, 255 if"):
        import_agent({"path": path}, "breakout")
    agent, _ = import_agent({"path": path, "input_divisor": 255}, "breakout")
    assert_same_q_values(agent, "breakout", torch_forward(model))


def test_what_stands_beside_a_network_under_a_strangers_name_is_not_passed_over(tmp_path):
    """A mean and a deviation by which inputs are normalised, a number each or one a pixel."""
    state = renamed(nature(), CLEANRL)
    pixels = {"mean": torch.zeros(4, 84, 84), "std": torch.ones(4, 84, 84)}
    for content, name in (
        (state | {"obs_mean": torch.tensor(33.0)}, "obs_mean"),
        ({"model": state, "scaler": pixels}, "scaler.mean"),
    ):
        torch.save(content, tmp_path / "agent.pt")
        with pytest.raises(AgentImportError, match=f"extra: {name}"):
            import_agent({"path": str(tmp_path / "agent.pt")}, "pong")
    torch.save({"model": state, "grad_scaler": {"scale": 65536.0}, "step": 3}, tmp_path / "agent.pt")
    import_agent({"path": str(tmp_path / "agent.pt")}, "pong")


@pytest.mark.parametrize("packed", ["folder", "zip", "file"])
def test_pfrl(tmp_path, packed):
    model = nature()
    folder = tmp_path / "best"
    folder.mkdir()
    torch.save(renamed(model, PFRL), folder / "model.pt")
    torch.save(renamed(nature(seed=1), PFRL), folder / "target_model.pt")
    path = {"folder": folder, "file": folder / "model.pt", "zip": tmp_path / "best.zip"}[packed]
    with zipfile.ZipFile(tmp_path / "best.zip", "w") as archive:
        for name in ("model.pt", "target_model.pt"):
            archive.write(folder / name, f"best/{name}")
    agent, metadata = import_agent({"from": "pfrl", "path": str(path)}, "pong")
    assert_same_q_values(agent, "pong", torch_forward(model))
    assert not metadata["protocol"]["fire_on_reset"]
    assert metadata["protocol"]["repeat_first_frame"]


@pytest.mark.parametrize("prefix", ["policy.model.", "model."])
def test_tianshou_needs_to_be_told_the_scale_unless_its_keys_show_it(tmp_path, prefix):
    model, path = nature(), tmp_path / "policy.pth"
    old = {"model_old.module.net.0.0.weight": torch.zeros(1), "_optimizers": [{"state": {0: {"m": torch.zeros(1)}}}]}
    torch.save(renamed(model, TIANSHOU, f"{prefix}module.") | old, path)
    agent, _ = import_agent({"from": "tianshou", "path": str(path)}, "pong")
    assert_same_q_values(agent, "pong", torch_forward(model))
    torch.save(renamed(model.float(), TIANSHOU, prefix) | old, path)
    with pytest.raises(AgentImportError, match=r"does not tell how its inputs were scaled: give input_divisor"):
        import_agent({"from": "tianshou", "path": str(path)}, "pong")
    agent, _ = import_agent({"from": "tianshou", "path": str(path), "input_divisor": 1}, "pong")
    assert_same_q_values(agent, "pong", torch_forward(model, divisor=1.0))


def test_the_library_is_guessed(tmp_path):
    path = tmp_path / "x"
    for library, names in {"cleanrl": CLEANRL, "pfrl": PFRL, "sb3": SB3}.items():
        torch.save(renamed(nature(), names), path)
        assert import_agent({"path": str(path)}, "pong")[1]["imported"]["from"] == library
    torch.save(renamed(nature(), dict.fromkeys("02479", "q") | {"0": "conv"}), path)
    with pytest.raises(AgentImportError, match=r"not how sb3, cleanrl, .* call them; describe the network"):
        import_agent({"path": str(path)}, "pong")


def test_old_torch_files_and_safetensors_are_read_too(tmp_path):
    model, path = nature(), tmp_path / "model"
    torch.save(renamed(model, CLEANRL), path, _use_new_zipfile_serialization=False)
    assert_same_q_values(import_agent({"path": str(path)}, "pong")[0], "pong", torch_forward(model))
    arrays = {name: tensor.float().numpy() for name, tensor in renamed(model, CLEANRL).items()}
    path.write_bytes(safetensors.numpy.save(arrays))
    assert_same_q_values(import_agent({"path": str(path)}, "pong")[0], "pong", torch_forward(model))


# Mappings


def mapping_file(tmp_path, **content):
    path = tmp_path / "mapping.yaml"
    path.write_text(yaml.safe_dump({"input_divisor": 255, **content}))
    return str(path)


def imported(tmp_path, state, mapping, game="pong", **source):
    path = tmp_path / "checkpoint.pt"
    torch.save(state, path)
    mapping = mapping_file(tmp_path, **mapping)
    return import_agent({"from": "mapping", "path": str(path), "mapping": mapping, **source}, game)


NIPS = {
    "convolutions": [
        {"key": "q.net.0", "filters": 16, "kernel": 8, "stride": 4},
        {"key": "q.net.2", "filters": 32, "kernel": 4, "stride": 2},
    ],
    "hidden": [{"key": "q.net.5", "units": 256}],
    "output": "q.net.7",
}


def nips(actions=6):
    torch.manual_seed(0)
    convolutions = (nn.Conv2d(4, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.Flatten())
    return livelier(nn.Sequential(*convolutions, nn.Linear(2592, 256), nn.ReLU(), nn.Linear(256, actions)))


@pytest.mark.parametrize("divisor", [255, 1, 256.0])
def test_the_network_of_2013_through_a_mapping(tmp_path, divisor):
    model = nips()
    state = {"q": {"net": model.state_dict()}, "optimizer": {"lr": 0.1}, "step": torch.tensor(3)}
    agent, metadata = imported(tmp_path, state, NIPS | {"input_divisor": divisor})
    assert agent.network == Network((16, 32), 256, kernels=(8, 4), strides=(4, 2))
    assert_same_q_values(agent, "pong", torch_forward(model, divisor=divisor))
    assert metadata["imported"]["mapping"].endswith("mapping.yaml")
    assert metadata["imported"]["mapping_digest"] == file_digest(tmp_path / "mapping.yaml")
    save_agent(tmp_path / "agent.safetensors", agent, metadata)
    np.testing.assert_array_equal(
        load_agent(tmp_path / "agent.safetensors")[0].q_values(observations(), "pong"),
        agent.q_values(observations(), "pong"),
    )


def test_two_hidden_layers(tmp_path):
    torch.manual_seed(0)
    dense = (nn.Linear(8 * 16 * 16, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 6))
    model = livelier(nn.Sequential(nn.Conv2d(4, 8, 9, 5), nn.ReLU(), nn.Flatten(), *dense))
    mapping = {
        "convolutions": [{"key": "0", "filters": 8, "kernel": 9, "stride": 5}],
        "hidden": [{"key": "3", "units": 32}, {"key": "5", "units": 24}],
        "output": "7",
    }
    agent, _ = imported(tmp_path, model.state_dict(), mapping)
    assert agent.network.controller == 24
    assert_same_q_values(agent, "pong", torch_forward(model))


class Duelling(nn.Module):
    """Wang et al. 2016, with the given hidden layers shared and in each stream."""

    def __init__(self, shared, own, actions=6):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Conv2d(4, 8, 8, 4), nn.ReLU(), nn.Conv2d(8, 8, 4, 2), nn.ReLU(), nn.Flatten())
        width = 8 * 9 * 9
        if shared:
            self.trunk.append(nn.Linear(width, shared)).append(nn.ReLU())
            width = shared
        self.v = self.stream(width, own and own[0], 1)
        self.a = self.stream(width, own and own[1], actions)

    def stream(self, width, own, outputs):
        if not own:
            return nn.Sequential(nn.Linear(width, outputs))
        return nn.Sequential(nn.Linear(width, own), nn.ReLU(), nn.Linear(own, outputs))

    def forward(self, x):
        x = self.trunk(x)
        advantage = self.a(x)
        return self.v(x) + advantage - advantage.mean(1, keepdim=True)


@pytest.mark.parametrize(("shared", "own"), [(None, (24, 32)), (16, (24, 32)), (16, None)])
def test_duelling_networks_fold_into_plain_ones(tmp_path, shared, own):
    model = livelier(Duelling(shared, own))
    last = 2 if own else 0
    mapping = {
        "convolutions": [
            {"key": "trunk.0", "filters": 8, "kernel": 8, "stride": 4},
            {"key": "trunk.2", "filters": 8, "kernel": 4, "stride": 2},
        ],
        "hidden": [{"key": "trunk.5", "units": shared}] if shared else [],
        "value": {"output": f"v.{last}"},
        "advantage": {"output": f"a.{last}"},
    }
    if own:
        mapping["value"]["hidden"] = [{"key": "v.0", "units": own[0]}]
        mapping["advantage"]["hidden"] = [{"key": "a.0", "units": own[1]}]
    agent, _ = imported(tmp_path, model.state_dict(), mapping)
    assert_same_q_values(agent, "pong", torch_forward(model))


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ({"reads": [0, 17]}, "`value`: reads [0, 17] of 16 units; allowed: from 0, up to 16"),
        ({"reads": [8, 8]}, "`value`: reads [8, 8] of 16 units; allowed: from 0, up to 16"),
        ({"reads": [9, 8]}, "`value`: reads [9, 8] of 16 units"),
        ({"reads": [0, 8], "hidden": [{"key": "h", "units": 4}]}, "`value`: `reads` is for a stream without `hidden`"),
    ],
)
def test_units_that_a_stream_cannot_read(tmp_path, stream, message):
    own = {"hidden": [{"key": "g", "units": 4}]} if "hidden" in stream else {}
    mapping = {key: NIPS[key] for key in ("convolutions",)} | {"hidden": [{"key": "x", "units": 16}]}
    mapping |= {"value": {"output": "v", **stream}, "advantage": {"output": "a", **own}}
    with pytest.raises(AgentImportError) as caught:
        read_declaration(Path(mapping_file(tmp_path, **mapping)))
    assert f"mapping.yaml: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mapping_in_flaxs_layout(tmp_path):
    parameters = flax_parameters(same=True)
    state = {
        layer: {part: torch.from_numpy(array) for part, array in parts.items()} for layer, parts in parameters.items()
    }
    sizes = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
    mapping = {
        "layout": "flax",
        "padding": "same",
        "convolutions": [
            {"key": f"Conv_{layer}", "filters": filters, "kernel": kernel, "stride": stride}
            for layer, (filters, kernel, stride) in enumerate(sizes)
        ],
        "hidden": [{"key": "Dense_0", "units": 512}],
        "output": "Dense_1",
        "input_divisor": 100,
    }
    agent, _ = imported(tmp_path, state, mapping)
    assert_same_q_values(agent, "pong", flax_forward(parameters, observations(), same=True, divisor=100))


def test_actions_are_put_into_the_emulators_order(tmp_path):
    model, ids = nips(), [12, 0, 1, 3, 4, 11]
    agent, metadata = imported(tmp_path, {"q": {"net": model.state_dict()}}, NIPS | {"actions": ids})
    assert agent.actions == {"pong": tuple(PONG)}
    assert metadata["imported"]["actions"] == ids
    expected = torch_forward(model)
    assert_same_q_values(agent, "pong", expected[:, [ids.index(action) for action in PONG]])
    agent, _ = imported(tmp_path, {"q": {"net": model.float().state_dict()}}, NIPS, actions=ids[::-1])
    assert_same_q_values(agent, "pong", expected[:, [ids[::-1].index(action) for action in PONG]])


def test_other_actions_than_the_emulators_are_refused(tmp_path):
    state = {"q": {"net": nips(3).state_dict()}}
    with pytest.raises(
        AgentImportError, match=r"3 outputs, but under the protocol paper2015 pong has the 6 actions \[0"
    ):
        imported(tmp_path, state, NIPS)
    with pytest.raises(AgentImportError, match=r"3 outputs for the actions \[0, 3, 4\], but under"):
        imported(tmp_path, state, NIPS, actions=[0, 3, 4])
    with pytest.raises(AgentImportError, match=r"q.net.7.bias is \(3,\), declared \(2,\)"):
        imported(tmp_path, state, NIPS, actions=[0, 3])


def test_all_actions_of_the_emulator_need_the_protocol_that_has_them(tmp_path):
    model = nips(18)
    state = {"q": {"net": model.state_dict()}}
    with pytest.raises(AgentImportError, match=r"18 outputs, but under .* in all: --protocol machado2018"):
        imported(tmp_path, state, NIPS)
    source = {"from": "mapping", "path": f"{tmp_path}/checkpoint.pt", "mapping": mapping_file(tmp_path, **NIPS)}
    agent, _ = import_agent(source, "pong", "machado2018")
    assert_same_q_values(agent, "pong", torch_forward(model))


def test_the_report_names_what_is_missing_extra_wrong_and_not_finite(tmp_path):
    state = {f"q.net.{name}": tensor for name, tensor in nips().state_dict().items()}
    state["q.net.5.weight"] = torch.zeros(256, 2000)
    state["q.net.2.bias"][3] = float("nan")
    state["q.net.9.weight"] = state.pop("q.net.0.bias")
    state |= {f"target.{number}": torch.zeros(1) for number in range(20)}
    with pytest.raises(AgentImportError) as caught:
        imported(tmp_path, state, NIPS)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("(1 missing, 21 extra, 1 of the wrong shape, 1 not finite):")
    assert "  missing: q.net.0.bias (16,)" in lines
    assert "  extra: q.net.9.weight (16,)" in lines
    assert "  extra: and 9 more" in lines
    assert "  of the wrong shape: q.net.5.weight is (256, 2000), declared (256, 2592)" in lines
    assert "  not finite: q.net.2.bias" in lines
    with pytest.raises(AgentImportError, match="1 missing, 1 extra, 1 of the wrong shape"):
        imported(tmp_path, state, NIPS | {"ignore": ["target."]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "keras"}, "layout: 'keras' is not allowed; allowed: torch, flax"),
        ({"scale": 1}, "mapping: unknown key 'scale' (value 1); allowed: acting, actions, "),
        ({"input_divisor": 0}, "input_divisor: 0 is not allowed; allowed: more than 0"),
        ({"hidden": []}, "a network needs one or two hidden layers"),
        ({"hidden": [{"key": "a", "units": 1}] * 3}, "a network needs one or two hidden layers"),
        ({"output": None}, "output: null is not allowed; allowed: text"),
        ({"value": {"output": "v"}}, "needs either `output` or both `value` and `advantage`"),
        ({"convolutions": [{"key": "a", "filters": 1, "kernel": 8, "stride": 84}] * 2}, "leave nothing of 84 pixels"),
        ({"convolutions": [{"key": "a", "filters": 1, "kernel": 8}]}, "convolutions[0]: the key 'stride' is missing"),
        ({"actions": [1, 1]}, "actions: [1, 1] is not allowed; allowed: no entry twice"),
        ({"input_divisor": float("nan")}, "mapping.yaml: input_divisor nan; allowed: 1e-06 to 1e+06"),
        ({"input_divisor": float("inf")}, "input_divisor inf; allowed: 1e-06 to 1e+06"),
        ({"input_divisor": 1e-30}, "input_divisor 1e-30; allowed: 1e-06 to 1e+06"),
    ],
)
def test_a_bad_mapping_is_one_clear_line(tmp_path, change, message):
    with pytest.raises(AgentImportError) as caught:
        read_declaration(Path(mapping_file(tmp_path, **(NIPS | change))))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mapping_must_say_how_inputs_were_scaled(tmp_path):
    path = tmp_path / "mapping.yaml"
    path.write_text(yaml.safe_dump(NIPS))
    with pytest.raises(AgentImportError, match="the key 'input_divisor' is missing"):
        read_declaration(path)
    for content in ("a: [", "", "- 1"):
        path.write_text(content)
        with pytest.raises(AgentImportError):
            read_declaration(path)


def test_streams_must_match():
    convolutions = (Convolution("c", 4, 8, 4),)
    stream = Stream("v", (Dense("h", 4),))
    with pytest.raises(AgentImportError, match="the same number of hidden layers"):
        Declaration(convolutions, (), value=stream, advantage=Stream("a"))
    with pytest.raises(AgentImportError, match="either `output` or both"):
        Declaration(convolutions, (Dense("h", 4),), "out", stream, stream)


# Hostile files


class Bomb:
    """Unpickling it ends the test, and no ``except Exception`` stops that."""

    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


class SystemBomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def refused(path, **source):
    with pytest.raises(AgentImportError) as caught:
        import_agent({"path": str(path), **source}, "pong")
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("library", [None, *LIBRARIES])
@pytest.mark.parametrize("protocol", range(6))
def test_a_bare_malicious_pickle_is_not_executed(tmp_path, library, protocol):
    path = tmp_path / "ckpt.1"
    source = {"from": library} if library else {}
    for bomb in (Bomb(), SystemBomb(tmp_path / "executed"), {"online_params": Bomb()}, [np.zeros(3, "f4"), Bomb()]):
        path.write_bytes(pickle.dumps(bomb, protocol))
        refused(path, **source)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("old", [False, True])
def test_malicious_torch_files(tmp_path, old):
    path = tmp_path / "model"
    state = renamed(nature(), CLEANRL) | {"extra": Bomb()}
    torch.save(state, path, _use_new_zipfile_serialization=not old)
    refused(path, **{"from": "cleanrl"})
    state = renamed(nature(), PFRL) | {"extra": Bomb()}
    (tmp_path / "agent").mkdir()
    torch.save(state, tmp_path / "agent/model.pt", _use_new_zipfile_serialization=not old)
    with pytest.raises(AgentImportError, match=r"model\.pt"):
        import_agent({"from": "pfrl", "path": str(tmp_path / "agent")}, "pong")
    torch.save(renamed(nature(), TIANSHOU, "policy.model.") | {"extra": Bomb()}, path)
    refused(path, **{"from": "tianshou", "input_divisor": 1})


def test_what_stable_baselines3_pickles_beside_the_network_is_never_looked_at(tmp_path):
    model = nature()
    extra = [
        ("pytorch_variables.pth", pickle.dumps(Bomb())),
        ("../../escape", b"x"),
        ("replay_buffer.pkl", pickle.dumps(Bomb())),
    ]
    path = sb3_zip(tmp_path / "model.zip", model, extra=extra)
    agent, _ = import_agent({"from": "sb3", "path": path}, "pong")
    assert_same_q_values(agent, "pong", torch_forward(model))
    assert not (tmp_path.parent.parent / "escape").exists()
    for content in (pickle.dumps(Bomb()), pickle.dumps(Bomb(), 2), b"PK\x03\x04", Path(path).read_bytes()):
        with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
            archive.writestr("policy.pth", content)
        refused(tmp_path / "evil.zip", **{"from": "sb3"})
    buffer = io.BytesIO()
    torch.save(renamed(model.float(), SB3) | {"extra": Bomb()}, buffer)
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("policy.pth", buffer.getvalue())
    refused(tmp_path / "evil.zip", **{"from": "sb3"})


def test_zip_bombs_are_refused_before_they_unpack(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "LARGEST_FILE", 10**6)
    bomb = tmp_path / "bomb.zip"
    for names in (["policy.pth"], ["best/model.pt"], ["x/data.pkl"], ["policy.pth", "data"]):
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, bytes(2 * 10**6 // len(names)))
        assert bomb.stat().st_size < 10**5
        assert "unpacks to more than" in refused(bomb)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(2 * 10**6))
    with zipfile.ZipFile(bomb, "w") as archive:
        archive.writestr("policy.pth", inner.getvalue())
    assert "unpacks to more than" in refused(bomb)
    bomb.write_bytes(bytes(2 * 10**6))
    assert "larger than" in refused(bomb)


def test_a_zip_that_lies_about_its_sizes_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "LARGEST_FILE", 10**6)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("policy.pth", bytes(5 * 10**6))
    content = bomb.read_bytes().replace(struct.pack("<I", 5 * 10**6), struct.pack("<I", 100))
    bomb.write_bytes(content)
    refused(bomb)


def test_flax_extension_types_other_than_arrays_are_refused(tmp_path):
    path = tmp_path / "model"
    parameters = flax_parameters()
    for code in (0, 2, 3, 5, 127):
        path.write_bytes(msgpack.packb({"params": {"x": msgpack.ExtType(code, pickle.dumps(Bomb()))}}))
        assert f"msgpack extension type {code}; only" in refused(path, **{"from": "cleanrl"})
    for fields in (
        (3, "float32", b""),
        ((2, 2), "float32", bytes(4)),
        ((1,), 7, bytes(4)),
        ((10**9,), "float32", bytes(4)),
    ):
        path.write_bytes(msgpack.packb({"params": {"x": msgpack.ExtType(1, msgpack.packb(fields))}}))
        refused(path)
    path.write_bytes(msgpack.packb({"params": {"x": msgpack.ExtType(1, msgpack.packb(((1,), "O", bytes(8))))}}))
    assert read_tensors(path).tensors == {}
    content = flax_msgpack({"params": parameters})
    for length in (1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path)
    path.write_bytes(b"\x81\xa1a" * 5000 + b"\x01")
    refused(path)


def opcodes(*parts):
    return b"\x80\x04" + b"".join(part.encode("latin1") if isinstance(part, str) else part for part in parts) + b"."


@pytest.mark.parametrize(
    "name",
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("builtins", "dict"),
        ("numpy", "load"),
        ("numpy", "memmap"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("numpy", "ndarray.tofile"),
        ("copyreg", "_reconstructor"),
        ("jaxtyping", "x"),
        ("policy_distillation.importing.pickles", "io"),
        ("flaxx", "x"),
    ],
    ids=".".join,
)
def test_no_name_but_those_of_arrays_may_be_asked_for(tmp_path, name):
    path = tmp_path / "ckpt.1"
    stack = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in name) + b"\x93"
    for content in (f"c{name[0]}\n{name[1]}\n", stack):
        path.write_bytes(opcodes(content))
        assert f"refused: the pickle asks for '{'.'.join(name)}'" in refused(path)


def test_names_of_jax_libraries_stand_for_nothing(tmp_path, monkeypatch):
    """Neither imported nor looked up: even a module that lies there ready is not touched."""
    trap = types.ModuleType("optax.trap")
    trap.__getattr__ = lambda name: pytest.fail("looked up")
    monkeypatch.setitem(sys.modules, "optax", types.ModuleType("optax"))
    monkeypatch.setitem(sys.modules, "optax.trap", trap)
    path = tmp_path / "ckpt.1"
    path.write_bytes(opcodes("coptax.trap\nrun\n(S'touch x'\ntR"))
    assert read_tensors(path).tensors == {}
    path.write_bytes(opcodes("coptax.trap\nrun\n(S'touch x'\nt\x81}S'a'\nI1\nsb"))
    assert read_tensors(path).tensors == {}


def nested(depth):
    """A list of twice the last one, and again: a few bytes each, and twice the text."""
    lists = b"]\x94" + b"".join(b"]\x94(h" + bytes([n]) + b"h" + bytes([n]) + b"e" for n in range(depth))
    return b"\x80\x04" + lists + b"cnumpy\ndtype\nh" + bytes([depth]) + b"\x85R."


def copied(name, entries, copies):
    """One dictionary, and a list of calls with it: five bytes a call."""
    dictionary = b"}q\x01(" + b"".join(b"J" + struct.pack("<i", key) + b"N" for key in range(entries)) + b"u0"
    return b"\x80\x02" + f"c{name}\nq\0".encode() + dictionary + b"](" + b"h\0h\1\x85R" * copies + b"e."


def in_a_torch_zip(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in (("data.pkl", content), ("version", b"3\n"), ("byteorder", b"little")):
            archive.writestr(f"a/{name}", data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nested(27), "no tensors at all"),
        (copied("flax.core.frozen_dict\nFrozenDict", 50_000, 500), "no tensors at all"),
        (in_a_torch_zip(copied("collections\nOrderedDict", 50_000, 500)), "copies what it holds again and again"),
        (in_a_torch_zip(b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R."), "asks for 'bytearray'"),
    ],
    # A zip holds the time, and pytest's processes must agree on names.
    ids=["nested", "copied", "copied in a zip", "bytearray"],
)
def test_a_pickle_of_few_bytes_takes_neither_memory_nor_time(tmp_path, content, message):
    path = tmp_path / "x"
    path.write_bytes(content)

    def check():
        with pytest.raises(AgentImportError, match=message):
            import_agent({"path": str(path)}, "pong")

    in_a_child(check, tmp_path / "note", 60)


def test_torch_reads_what_was_checked(tmp_path):
    """Two zips in one file, the second's directory where Python looks for it, the first's where torch does."""
    files = [io.BytesIO(), io.BytesIO()]
    for file, number in zip(files, (7.0, 3.0), strict=True):
        torch.save({"x": torch.full((2,), number)}, file)
    first, second = (file.getvalue() for file in files)
    directory = int.from_bytes(second[-6:-2], "little")
    both = first[:-22] + second[:directory] + second[directory:]
    path = tmp_path / "x.pt"
    path.write_bytes(both)
    with zipfile.ZipFile(io.BytesIO(both)) as archive:
        (storage,) = (name for name in archive.namelist() if name.endswith("/data/0"))
        seen = np.frombuffer(archive.read(storage), "f4")
    np.testing.assert_array_equal(containers.read_tensors(path).tensors["x"], seen)


def test_a_pickle_cannot_change_the_classes_that_stand_in(tmp_path):
    path = tmp_path / "ckpt.1"
    before = {name: dict(vars(cls)) for name, cls in vars(importing.pickles).items() if isinstance(cls, type)}
    for module, name in importing.pickles.ADMITTED:
        for state in ("}S'__setstate__'\nI1\ns", "N}S'__setstate__'\nI1\ns\x86", "N}S'value'\nI1\ns\x86"):
            path.write_bytes(opcodes(f"c{module}\n{name}\n", state, "b"))
            refused(path)
    after = {name: dict(vars(cls)) for name, cls in vars(importing.pickles).items() if isinstance(cls, type)}
    assert after == before


@pytest.mark.parametrize(
    "state",
    [
        (1, (10**12,), "f4", False, b"abcd"),
        (1, (2,), "f4", False, b"abcd"),
        (1, ("a", 10**12), "f4", False, b"abcd"),
        (1, (1,) * 9, "f4", False, b"abcd"),
        (1, (-1, -1), "f4", False, b"abcd"),
        (1, (-1,), "f4", False, b"abcd"),
        (1, "x", "f4", False, b"abcd"),
        (1, (1,), "f4", False, "text"),
        (1, (1,), "f4", False, [Bomb]),
    ],
    ids=str,
)
def test_arrays_that_are_not_what_they_claim(tmp_path, state):
    class Liar:
        def __reduce__(self):
            version, shape, dtype, fortran, content = state
            claim = (version, shape, np.dtype(dtype), fortran, content)
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), claim

    path = tmp_path / "ckpt.1"
    path.write_bytes(pickle.dumps({"online_params": {"params": {"Conv_0": {"kernel": Liar()}}}}))
    refused(path)


def test_arrays_of_objects_are_passed_over(tmp_path):
    path = tmp_path / "ckpt.1"
    path.write_bytes(pickle.dumps({"online_params": {"x": np.array([None, "text"], object), "y": np.ones(2, "f8")}}))
    assert list(read_tensors(path).tensors) == ["online_params.y"]
    path.write_bytes(pickle.dumps({"x": np.array([Bomb()], object)}))
    assert "asks for 'builtins.exec'" in refused(path)


def test_a_torch_tensor_that_claims_more_than_the_file_holds(tmp_path):
    path = tmp_path / "model"
    state = renamed(nature(), CLEANRL)
    state["network.7.weight"] = torch.zeros(1).expand(10**6, 10**6)
    torch.save(state, path)
    assert "claims 1000000000000 numbers that the file does not hold" in refused(path)


OLD_TORCH_START = b"".join(
    pickle.dumps(content, 2)
    for content in (
        torch.serialization.MAGIC_NUMBER,
        torch.serialization.PROTOCOL_VERSION,
        {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}},
    )
)


def claiming(numbers):
    """A file of torch before 1.6 with a tensor of which it holds nothing; torch would allocate it nevertheless."""

    class Storage:
        pass

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), 0, (numbers,), (1,), False, {})

    class Pickler(pickle._Pickler):
        def persistent_id(self, thing):
            return ("storage", torch.BFloat16Storage, "0", "cpu", numbers, None) if type(thing) is Storage else None

    file = io.BytesIO()
    Pickler(file, protocol=2).dump({"x": Tensor()})
    return OLD_TORCH_START + file.getvalue() + pickle.dumps([], 2)


@pytest.mark.parametrize("container", ["torch", "gzip", "sb3", "pfrl"])
def test_an_old_torch_file_that_claims_what_it_does_not_hold(tmp_path, container):
    path, content = tmp_path / "x", claiming(2**26)
    assert len(content) < 300
    if container in ("torch", "gzip"):
        path.write_bytes(content if container == "torch" else gzip.compress(content))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr({"sb3": "policy.pth", "pfrl": "model.pt"}[container], content)
    assert "x claims 67108864 numbers that the file does not hold" in refused(path)


def saved(container, tree):
    """What a file of the container holds, around the tree."""
    if container == "pickle":
        return pickle.dumps({"online_params": tree}, 4)
    buffer = io.BytesIO()
    torch.save(tree, buffer, _use_new_zipfile_serialization=container != "old torch")
    return gzip.compress(buffer.getvalue()) if container == "gzip" else buffer.getvalue()


CONTAINERS = ("torch", "old torch", "gzip", "pickle")


def numbers_for(container, count, dtype="float16"):
    return np.zeros(count, dtype) if container == "pickle" else torch.zeros(count, dtype=getattr(torch, dtype))


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(("levels", "wide"), [(18, 2), (8, 30), (1, 20_001)])
def test_dictionaries_that_lie_in_the_file_once_and_in_the_tree_a_million_times(tmp_path, container, levels, wide):
    tree = {"w": numbers_for(container, 1)}
    for _ in range(levels):
        tree = {str(number): tree for number in range(wide)}
    (tmp_path / "x").write_bytes(saved(container, tree))
    assert "its dictionaries have more than 20000 entries, so no DQN" in refused(tmp_path / "x")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_tensor_under_many_names_counts_under_each_as_large_as_it_becomes(tmp_path, monkeypatch, container, dtype):
    monkeypatch.setattr(containers, "LARGEST_FILE", 10 * 2**20)
    shared = numbers_for(container, 2**18, dtype)
    path = tmp_path / "x"
    path.write_bytes(saved(container, {f"x{number}": shared for number in range(10)}))
    assert len(read_tensors(path).tensors) == 10
    path.write_bytes(saved(container, {f"x{number}": shared for number in range(11)}))
    assert "its tensors are more than 10 MB together, so no DQN" in refused(path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_halves_in_flax_count_as_large_as_they_become(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(containers, "LARGEST_FILE", 2**20)
    array = msgpack.ExtType(1, msgpack.packb(((3 * 2**17,), dtype, bytes(3 * 2**18))))
    (tmp_path / "x").write_bytes(msgpack.packb({"params": {"x": array}}))
    assert "its tensors are more than 1 MB together" in refused(tmp_path / "x")


@pytest.mark.parametrize("container", CONTAINERS)
def test_names_have_an_end(tmp_path, container):
    """One long key above many short ones would be copied for each."""
    tree = {"x" * 998: {str(number): numbers_for(container, 1) for number in range(1000)}}
    (tmp_path / "x").write_bytes(saved(container, tree))
    assert "has a name of more than 1000 characters" in refused(tmp_path / "x")


def slow_key(wide):
    """A pickled key whose hash would take forever: of tuples that hold the same tuple more than once, at each of which
    Python computes its hash again."""
    key = ()
    for _ in range(60):
        key = (key,) * wide

    class Key:
        pass

    class Pickler(pickle._Pickler):  # writes the tuple without computing its hash
        def save(self, thing, save_persistent_id=True):
            super().save(key if type(thing) is Key else thing, save_persistent_id)

    file = io.BytesIO()
    Pickler(file, 2).dump({Key(): 1})
    return file.getvalue()


def torch_zip(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in (*members, ("x/version", "3\n")):
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("wide", [2, 300])
def test_a_key_whose_hash_would_take_forever(tmp_path, container, wide):
    content = slow_key(wide)
    if container == "old torch":
        content = OLD_TORCH_START + content + pickle.dumps([], 2)
    elif container != "pickle":
        content = torch_zip([("x/data.pkl", content)])
    (tmp_path / "x").write_bytes(gzip.compress(content) if container == "gzip" else content)
    assert "a tuple of more than 100000 objects, one within the other" in refused(tmp_path / "x")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("slow", [0, 1])
@pytest.mark.parametrize("name", ["x/data.pkl", "x/DATA.PKL"])
def test_a_second_pickle_of_the_same_name_is_refused(tmp_path, slow, name):
    members = [("x/data.pkl", pickle.dumps({}, 2)), (name, pickle.dumps({}, 2))]
    members[slow] = (members[slow][0], slow_key(2))
    (tmp_path / "x").write_bytes(torch_zip(members))
    assert "two members of the same name" in refused(tmp_path / "x")


def test_a_pickle_of_more_steps_than_any_checkpoint_has(tmp_path, monkeypatch):
    monkeypatch.setattr(pickle_limits, "MOST_STEPS", 1000)
    for container in CONTAINERS:
        (tmp_path / "x").write_bytes(saved(container, {"scores": [[] for _ in range(200)]}))
        read_tensors(tmp_path / "x")
        (tmp_path / "x").write_bytes(saved(container, {"scores": [[] for _ in range(2000)]}))
        assert "the pickle has more than 1000 steps" in refused(tmp_path / "x")


def test_a_file_of_countless_networks_is_not_searched_for_the_best(tmp_path):
    wrappers = itertools.product(["model", "agent", "module", "q_network"], repeat=5)
    tree = {f"{'.'.join(wrapper)}.network.0.weight": torch.zeros(1) for wrapper in wrappers}
    torch.save(tree, tmp_path / "x", _use_new_zipfile_serialization=False)
    assert "it holds several networks, under 'agent.agent.agent.agent.agent.', " in refused(tmp_path / "x")


def test_settings_larger_than_any_checkpoints_are_not_parsed(tmp_path, monkeypatch):
    path = tmp_path / "model.zip"
    monkeypatch.setattr(containers, "LARGEST_SETTINGS", 1000)
    sb3_zip(path, nature(), "{" + " " * 1000 + "}")
    assert "its member data is larger than 0 MB" in refused(path)
    monkeypatch.setattr(containers, "MOST_VALUES", 1000)
    for content in ({"args": [[] for _ in range(600)]}, {"args": [0] * 1001}, {str(n): {} for n in range(600)}):
        path.write_bytes(msgpack.packb(content))
        refused(path)


def test_any_truncation_and_any_flipped_byte_is_refused_or_read(tmp_path):
    """Neither crashes nor hangs, whatever the bytes."""
    rng = np.random.default_rng(0)
    path = tmp_path / "x"
    torch.save({"a": torch.zeros(2)}, tmp_path / "torch")
    torch.save({"a": torch.zeros(2)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    (tmp_path / "pickle").write_bytes(pickle.dumps({"online_params": {"a": np.zeros(2, "f4")}}))
    (tmp_path / "msgpack").write_bytes(flax_msgpack({"a": np.zeros(2, "f4")}))
    for name in ("torch", "old", "pickle", "msgpack"):
        content = (tmp_path / name).read_bytes()
        assert len(read_tensors(tmp_path / name).tensors) == 1
        for _ in range(100):
            damaged = bytearray(content)
            damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
            path.write_bytes(damaged[: rng.integers(1, len(content) + 1)] if rng.random() < 0.5 else damaged)
            with contextlib.suppress(AgentImportError):
                read_tensors(path)


@pytest.mark.parametrize("content", [b"", b"x", b"text " * 100, bytes(8), bytes(4096), b"\xff" * 100, b"PK", b"\x80"])
def test_foreign_bytes(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    refused(path)
    refused(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AgentImportError, match=r"empty: a folder without pfrl's model\.pt, and without snapshots"):
        import_agent({"path": str(tmp_path / "empty")}, "pong")


# Protocols, the hub, the command


def test_every_library_has_a_protocol_and_differences_are_recorded(tmp_path):
    assert all(library.protocol in PROTOCOLS for library in LIBRARIES.values())
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())
    path = sb3_zip(tmp_path / "model.zip", nature())
    _, metadata = import_agent({"from": "sb3", "path": path}, "pong", "paper2015")
    assert metadata["protocol"]["name"] == "paper2015"
    assert metadata["imported"]["trained_under"] == "sb3"
    assert metadata["imported"]["driven_otherwise"] == {"fire_on_reset": [True, False]}
    assert differences("dopamine", "machado2018") == {
        "full_action_space": [False, True],
        "max_episode_frames": [108_000, 90_000],
    }


def test_downloads_are_pinned_and_failures_are_one_line(tmp_path, monkeypatch):
    hub = types.ModuleType("huggingface_hub")
    calls = []

    def hf_hub_download(repository, name, revision):
        calls.append((repository, name, revision))
        if name == "none":
            raise OSError("not\nthere")
        return sb3_zip(tmp_path / "model.zip", nature())

    hub.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    source = {"from": "sb3", "hub": "sb3/dqn-PongNoFrameskip-v4", "revision": "0" * 40}
    _, metadata = import_agent(source, "pong")
    assert calls == [("sb3/dqn-PongNoFrameskip-v4", "dqn-PongNoFrameskip-v4.zip", "0" * 40)]
    assert metadata["imported"]["file"] == "dqn-PongNoFrameskip-v4.zip"
    assert metadata["imported"]["revision"] == "0" * 40
    with pytest.raises(
        AgentImportError, match=r"^sb3/dqn-PongNoFrameskip-v4: cannot download none \(OSError: not there\)$"
    ):
        download(source | {"file": "none"})


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["policy_distillation", *map(str, arguments)])
    main()


def test_the_command_guesses_says_what_it_found_and_evaluates(tmp_path, monkeypatch, capsys):
    path = sb3_zip(tmp_path / "model.zip", nature())
    output = tmp_path / "agent.safetensors"
    run(monkeypatch, "import", path, "--game", "pong", "--output", output, "--protocol", "paper2015")
    said = capsys.readouterr().out
    for expected in (
        "sb3, stable-baselines3 zip, SHA-256 ",
        "32 filters 8x8 stride 4, 64 filters 4x4 stride 2, 64 filters 3x3 stride 1, 512 units, padding valid, 1,687,20",
        "pixels / 255",
        "pong [0, 1, 3, 4, 11, 12]",
        "fire_on_reset trained with True, driven with False",
        str(output),
    ):
        assert expected in said
    _, metadata = load_agent(output)
    assert metadata["kind"] == "imported"
    assert metadata["provenance"]["software"]["torch"]
    monkeypatch.setattr(
        "policy_distillation.__main__.evaluate", lambda agent, episodes: print("played", agent, episodes)
    )
    import_(path, "pong", output=output, episodes=16)
    assert f"played {output} 16" in capsys.readouterr().out
    assert load_agent(output)[1]["protocol"]["name"] == "sb3"


@pytest.mark.parametrize("divisor", ["0", "-255", "nan", "inf", "1e-30", "1e30"])
def test_input_divisors_that_are_none(tmp_path, monkeypatch, divisor):
    path = sb3_zip(tmp_path / "model.zip", nature())
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, "import", path, "--game", "pong", f"--input-divisor={divisor}")
    assert str(caught.value) == f"error: {path}: input_divisor {float(divisor):g}; allowed: 1e-06 to 1e+06"


def test_the_command_refuses_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, "import", tmp_path / "none", "--game", "pong")
    assert str(caught.value) == f"error: import: {tmp_path}/none does not exist"
    path = sb3_zip(tmp_path / "model.zip", nature())
    with pytest.raises(SystemExit, match="not how pfrl call them"):
        run(monkeypatch, "import", path, "--game", "pong", "--from", "pfrl")
    with pytest.raises(SystemExit, match=r"so the key 'file' \(--hub-file\) must name the file"):
        run(monkeypatch, "import", "someone/something", "--game", "pong", "--revision", "0" * 40)


# Networks that only imports have


def test_sides_of_convolutions():
    assert Network((1, 1, 1), 1).sides == (84, 20, 9, 7)
    assert Network((1, 1, 1), 1, padding="same").sides == (84, 21, 11, 11)
    assert Network((1,), 1, kernels=(84,), strides=(1,)).sides == (84, 1)
    with pytest.raises(ValueError, match="leave nothing"):
        Network((1, 1), 1, kernels=(80, 6), strides=(1, 1))
    with pytest.raises(ValueError, match="as many kernels"):
        Network((1, 1), 1)


def test_inputs_of_a_padded_network_are_not_standardised():
    agent = Agent(Network((2, 2, 2), 4, padding="same"), {"pong": PONG})
    with pytest.raises(ValueError, match="cannot be standardised"):
        agent.standardise_inputs([(30.0, 2000.0)])


@pytest.mark.parametrize(
    "changes",
    [{"padding": "full"}, {"strides": [4, 2, 0]}, {"kernels": [8, 4]}, {"strides": "421"}, {"kernels": None}],
    ids=str,
)
def test_agents_with_impossible_convolutions_are_refused(tmp_path, changes):
    path = tmp_path / "agent.safetensors"
    save_agent(path, Agent(Network((2, 2, 2), 4), {"pong": PONG}), {})
    metadata = read_metadata(path)
    metadata["network"] |= changes
    tensors = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(tensors, path, {"policy_distillation": json.dumps(metadata)})
    with pytest.raises(CheckpointError):
        load_agent(path)


def test_agents_saved_before_there_were_other_convolutions_still_load(tmp_path):
    path = tmp_path / "agent.safetensors"
    agent = Agent(Network((2, 2, 2), 4), {"pong": PONG})
    save_agent(path, agent, {})
    metadata = read_metadata(path)
    for name in ("kernels", "strides", "padding"):
        del metadata["network"][name]
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path, {"policy_distillation": json.dumps(metadata)})
    assert load_agent(path)[0].network == replace(agent.network)
