"""Files from strangers: whatever an agent or a part of a data set claims, the answer is one line, in little memory.

Every mutated part is sealed again: its digest fits, so only what the reader checks protects it.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from policy_distillation.checkpoints import load_agent, save_agent
from policy_distillation.dataset_format import EPISODE_FIELDS, DatasetError, seal
from policy_distillation.header import CheckpointError, read_metadata
from policy_distillation.networks import Agent, Network
from policy_distillation.parts import Part
from policy_distillation.protocols import PROTOCOLS
from policy_distillation.recording import Dataset, dump_part

PAPER = PROTOCOLS["paper2015"]
MARGIN = 1 << 30
"""Address space in bytes that reading a small hostile file may take beyond what the process had."""
ARRAYS = ("frames", "q_values", "actions", "rewards", "terminations", "truncations")
WILD = [0, -1, 2**31, 2**63 - 1, 1e308, float("nan"), "", "x" * 10_000, "a\nb", None, [], {}, [[]], True]


def in_a_child(check: Callable[[], None], note: Path, seconds: int) -> None:
    """Run a check with an allowance of memory and time; a crash of the child is this test's failure."""
    child = os.fork()
    if child == 0:
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + MARGIN
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            signal.alarm(seconds)
            check()
            note.write_text("done")
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert (status, note.read_text()) == (0, "done")


def answer(read: Callable[[Path], None], error: type[Exception], path: Path) -> str | None:
    """The refusal, which is one line about the file; None where the file was read."""
    try:
        read(path)
    except error as refusal:
        message = str(refusal)
        assert message.startswith(f"{path}: ")
        assert len(message.splitlines()) == 1, message
        assert len(message) < len(str(path)) + 1000
        return message
    return None


# Agents


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("agent") / "agent.safetensors"
    save_agent(path, Agent(Network((4, 4, 4), 8), {"breakout": [0, 1, 3, 4]}), {"protocol": asdict(PAPER), "seed": 1})
    return path


def hostile_agents(path: Path) -> Iterator[tuple[str, bytes]]:
    data, metadata = path.read_bytes(), read_metadata(path)
    tensors = safetensors.torch.load_file(path)
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])

    def with_header(changed: dict[str, Any]) -> bytes:
        text = json.dumps(changed).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + length :]

    def with_metadata(changed: object) -> bytes:
        return safetensors.torch.save(tensors, {"policy_distillation": json.dumps(changed)})

    for size in (0, 1, 2**20, 2**32, 2**63, 2**64 - 1):
        yield f"header of {size} bytes", size.to_bytes(8, "little") + data[8:]
    for key, value in itertools.product(("network", "actions", "digest", "format"), WILD):
        yield f"{key}: {value!r:.20}", with_metadata({**metadata, key: value})
    for key, value in itertools.product(("channels", "hidden", "controller", "layer_norm"), WILD):
        changed = {**metadata["network"], key: value}
        yield f"network.{key}: {value!r:.20}", with_metadata({**metadata, "network": changed})
    for key in ("network", "actions", "digest", "format"):
        yield f"without {key}", with_metadata({name: value for name, value in metadata.items() if name != key})
    for name in tensors:
        for shape in ([], [0], [2**40], [2**32, 2**32], [-1]):
            yield f"{name} of shape {shape}", with_header({**header, name: {**header[name], "shape": shape}})
        for kind in ("F64", "BOOL", "X", 3):
            yield f"{name} of type {kind}", with_header({**header, name: {**header[name], "dtype": kind}})
        for offsets in ([0, 2**62], [8, 0], [-8, 0], []):
            yield f"{name} at {offsets}", with_header({**header, name: {**header[name], "data_offsets": offsets}})
        yield f"without {name}", with_header({key: value for key, value in header.items() if key != name})
    generator = random.Random(0)
    for _ in range(100):
        altered = bytearray(data)
        for _ in range(generator.randint(1, 8)):
            altered[generator.randrange(len(altered))] = generator.randrange(256)
        yield "noise", bytes(altered)


def test_hostile_agents(agent: Path, tmp_path: Path) -> None:
    cases = list(hostile_agents(agent))
    assert len(cases) >= 200
    harmless = {"network.layer_norm"}  # anything but true leaves the network as it is
    hostile = tmp_path / "hostile.safetensors"

    def check() -> None:
        for name, content in cases:
            (tmp_path / "note").write_text(name)
            hostile.write_bytes(content)
            refused = answer(lambda path: void(load_agent(path)), CheckpointError, hostile)
            if refused is None and name != "noise":
                assert name.split(":")[0] in harmless or "controller: None" in name, name

    in_a_child(check, tmp_path / "note", 120)


def void(_: object) -> None:
    pass


# Data sets


@pytest.fixture(scope="module")
def part(agent: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("part") / "part.h5"
    dump_part(agent, "breakout", "paper2015", 0, Dataset(1, 64, 2, 0.5), 0, path, device="cpu")
    return path


def replaced(name: str, *arguments: Any, **options: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, *arguments, **options)

    return change


def attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if value is None:
            del file.attrs[name]
        else:
            file.attrs[name] = value

    return change


def linked(name: str, link: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = link

    return change


def elsewhere(name: str) -> Callable[[h5py.File], None]:
    """What belongs there, in another file."""

    def change(file: h5py.File) -> None:
        with h5py.File(f"{file.filename}.other", "w") as other:
            file.copy(name, other)
        linked(name, h5py.ExternalLink(f"{file.filename}.other", name))(file)

    return change


def group(name: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_group(name)

    return change


def virtual(name: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        shape, dtype = file[name].shape, file[name].dtype
        del file[name]
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource("/etc/passwd", "x", shape)
        file.create_virtual_dataset(name, layout)

    return change


def huge(file: h5py.File) -> None:
    """Every array of the right type and of shapes that fit each other, for terabytes, in a file of a few kilobytes."""
    times, slots = 2**32, 64
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(ARRAYS, (times, slots)),
        "q_values": (times, slots, 4),
        "frames": (times, slots, 84, 84),
    }
    for name, shape in shapes.items():
        dtype = file[name].dtype
        del file[name]
        file.create_dataset(name, shape, dtype, chunks=(64, 1, *shape[2:]))


def hostile_changes() -> Iterator[tuple[str, Callable[[h5py.File], None]]]:
    yield "huge", huge
    episodes = [f"episodes/{name}" for name in EPISODE_FIELDS]
    for name in (*ARRAYS, *episodes):
        yield f"{name} missing", lambda file, name=name: void(file.pop(name))
        yield f"{name} is a group", group(name)
        yield f"{name} is a scalar", replaced(name, data=3)
        yield f"{name} is text", replaced(name, data="text")
        yield f"{name} is empty", replaced(name, data=h5py.Empty("f4"))
        yield f"{name} is huge", replaced(name, (2**40, 2**10), "u1", chunks=(1024, 1024))
        yield f"{name} has no rows", replaced(name, (0, 2), "u1")
        yield f"{name} has other types", replaced(name, data=np.zeros((32, 2), "c16"))
        yield f"{name} leads outside", linked(name, h5py.ExternalLink("/etc/passwd", "x"))
        yield f"{name} leads nowhere", linked(name, h5py.SoftLink("/nowhere"))
        yield f"{name} leads to itself", linked(name, h5py.SoftLink(f"/{name}"))
        yield f"{name} is virtual", virtual(name)
    yield "frames in one chunk", replaced("frames", (32, 2, 84, 84), "u1", chunks=(32, 2, 84, 84))
    yield "frames never written", replaced("frames", (32, 2, 84, 84), "u1", chunks=(32, 1, 84, 84))
    yield "no episodes", lambda file: void(file.pop("episodes"))
    yield "episodes of another file", elsewhere("episodes")
    wild: list[object] = [None, -1, 0, 2**62, 1.5e308, "", "x" * 10_000, "[" * 10_000, "a\nb", np.zeros(1000), "[]"]
    for name in ("game", "protocol", "action_ids", "part", "hours", "seed", "teacher", "settings", "provenance"):
        for value in wild:
            if name in ("game", "part", "seed") and isinstance(value, int):
                continue  # a number like another; read as text, a name like another
            yield f"attribute {name}: {value!r:.20}", attribute(name, value)
    for ids in ([-1], [18], list(range(19)), [[0, 1]], [0.5], []):
        yield f"action_ids: {ids}", attribute("action_ids", np.array(ids))


def read_part(path: Path) -> None:
    with Part(path) as part:
        part.describe()
        for name in ARRAYS:
            part.read(name, 0, min(64, part.times))


@pytest.mark.slow
def test_hostile_parts(part: Path, tmp_path: Path) -> None:
    cases = list(hostile_changes())
    assert len(cases) >= 200
    hostile = tmp_path / "hostile.h5"
    read_part(part)

    def check() -> None:
        for name, change in cases:
            (tmp_path / "note").write_text(name)
            shutil.copy(part, hostile)
            with h5py.File(hostile, "r+") as file:
                change(file)
            seal(hostile)
            assert answer(read_part, DatasetError, hostile) is not None, name

    in_a_child(check, tmp_path / "note", 200)


@pytest.mark.slow
def test_flipped_bits_under_a_seal_that_fits(part: Path, tmp_path: Path) -> None:
    """What libhdf5 finds is refused like the rest. (One or two in a thousand such bits make it search for ever.)"""
    data = part.read_bytes()
    hostile = tmp_path / "hostile.h5"
    generator = random.Random(0)
    marks = [data.find(name) for name in (b"action_ids\0", b"protocol\0", b"teacher\0", b"hours\0", b"TREE", b"HEAP")]
    places = [mark + offset for mark in marks if mark >= 0 for offset in range(0, 48, 2)]
    places += [generator.randrange(512, len(data)) for _ in range(60)]
    refused = []

    def check() -> None:
        for place in places:
            (tmp_path / "note").write_text(f"byte {place}")
            altered = bytearray(data)
            altered[place] ^= 1 << place % 8
            hostile.write_bytes(altered)
            seal(hostile)
            refused.append(answer(read_part, DatasetError, hostile))
        assert sum(message is not None for message in refused) > 20

    in_a_child(check, tmp_path / "note", 300)
