"""Foreign files to named tensors. Nothing in a file is executed, and nothing is read beyond a limit.

What a file is shows in its first bytes, never in its name:

    zip of torch.save       torch_files.py: tensors, plain containers and plain values
    older torch.save        the same
    zip around one of them  Stable-Baselines3, pfrl: the member that holds the network, by name
    gzip around one of them inflated up to the limit
    safetensors             as it is
    msgpack (flax)          arrays and plain values; other extension types are refused
    pickle (Dopamine)       pickles.py: an unpickler that can build numpy arrays and plain containers, and nothing else
"""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray

from .pickles import ForbiddenGlobal, unpickle_arrays, widened
from .torch_files import OLD_TORCH, is_torch, load_torch, unpacked_size

Tensors = dict[str, NDArray[np.float32]]

LARGEST_FILE = 512 * 2**20
"""Bytes of a file, or of what a zip says that it unpacks to; a DQN has 7 MB, its optimiser twice that."""
FLAX_ARRAY = 1
"""flax's msgpack extension type for an array: (shape, dtype's name, bytes), packed once more."""


class AgentImportError(ValueError):
    """A file that cannot be imported. The message is one line for the user, or a report of a few."""


@dataclass(frozen=True)
class Content:
    """What was found in a file."""

    container: str
    """``torch``, ``stable-baselines3 zip``, ``pfrl``, ``gzip of torch``, ``safetensors``, ``flax msgpack`` or
    ``pickle``."""
    tensors: Tensors
    """By their full names: keys of nested dictionaries joined by dots."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else the file says that matters, such as the library's version."""
    values: dict[str, float] = field(default_factory=dict)
    """Plain numbers beside the tensors, by their full names: settings of the training."""


def read_tensors(path: Path) -> Content:
    """The tensors in a file, or in a pfrl agent's folder. Raises AgentImportError."""
    if path.is_dir():
        if not (path / "model.pt").is_file():
            raise AgentImportError(
                f"{path}: a folder without pfrl's model.pt, and without snapshots, which have numbers in their names"
            )
        content = read_tensors(path / "model.pt")
        return Content("pfrl", content.tensors, content.facts)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise AgentImportError(f"{path}: larger than {LARGEST_FILE >> 20} MB, so no DQN")
        data = path.read_bytes()
        return _read(data)
    except AgentImportError as error:
        raise AgentImportError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    except ForbiddenGlobal as error:
        raise AgentImportError(f"{path}: refused: {error}") from None
    except FileNotFoundError:
        raise AgentImportError(f"{path}: no such file") from None
    except Exception as error:  # hostile bytes fail in as many ways as there are decoders
        line = " ".join(str(error).split())[:200]
        raise AgentImportError(f"{path}: unreadable ({type(error).__name__}: {line})") from None


def _read(data: bytes) -> Content:
    if data[:2] == b"PK":
        return _read_zip(data)
    if data[:2] == b"\x1f\x8b":
        content = _content("gzip", load_torch_zip(_inflate(data)))
        return Content(f"{content.container} of torch", content.tensors, {}, content.values)
    if data.startswith(OLD_TORCH):
        return _content("torch", load_torch(data))
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data):
        return _content("safetensors", safetensors.torch.load(data))
    if data[:1] == b"\x80":
        return _content("pickle", unpickle_arrays(data))
    if data[:1] and (0x81 <= data[0] <= 0x8F or data[0] in (0xDE, 0xDF)):
        return _content("flax msgpack", _load_msgpack(data))
    raise AgentImportError("neither torch, gzip, safetensors, flax msgpack nor a Dopamine checkpoint")


def _content(container: str, tree: Any, facts: dict[str, Any] | None = None) -> Content:
    """The floating point arrays and the plain numbers in nested dictionaries; anything else is passed over."""
    tensors: Tensors = {}
    values: dict[str, float] = {}
    for name, leaf in _leaves(tree):
        if isinstance(leaf, int | float):
            values[name] = float(leaf)
        else:
            tensors[name] = leaf
    return Content(container, tensors, facts or {}, values)


def _read_zip(data: bytes) -> Content:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = _members(archive)
        if is_torch(members):
            return _content("torch", load_torch(data))
        if "policy.pth" in members:
            facts = _stable_baselines3_facts(archive, members)
            return _content("stable-baselines3 zip", load_torch_zip(archive.read("policy.pth")), facts)
        models = [name for name in members if name == "model.pt" or name.endswith("/model.pt")]
        if len(models) == 1:
            return _content("pfrl", load_torch_zip(archive.read(models[0])))
    raise AgentImportError(
        "a zip without policy.pth (Stable-Baselines3), data.pkl (torch) or exactly one model.pt (pfrl)"
    )


def _members(archive: zipfile.ZipFile) -> list[str]:
    """Names, once it is known that all of them together unpack to something bearable."""
    if unpacked_size(archive) > LARGEST_FILE:
        raise AgentImportError(f"unpacks to more than {LARGEST_FILE >> 20} MB, so no DQN")
    return archive.namelist()


def _inflate(data: bytes) -> bytes:
    """A gzip file's content, of which no more than the limit is ever made."""
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    content = stream.decompress(data, LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise AgentImportError(f"unpacks to more than {LARGEST_FILE >> 20} MB, so no DQN")
    if not stream.eof:
        raise AgentImportError("a gzip file that was cut short")
    return content


def _stable_baselines3_facts(archive: zipfile.ZipFile, members: list[str]) -> dict[str, Any]:
    """The version, whether the policy divides its inputs, and how many quantiles an action has, where it has any.
    ``data`` is JSON; what is pickled inside it stays so."""
    facts: dict[str, Any] = {}
    if "_stable_baselines3_version" in members:
        facts["stable_baselines3"] = archive.read("_stable_baselines3_version").decode("ascii", "replace").strip()[:20]
    if "data" in members:
        data = json.loads(archive.read("data"))
        facts["normalize_images"] = bool((data.get("policy_kwargs") or {}).get("normalize_images", True))
        if type(data.get("n_quantiles")) is int:
            facts["n_quantiles"] = data["n_quantiles"]
    return facts


def load_torch_zip(data: bytes) -> Any:
    """What torch saved in a member of a zip or in a gzip file."""
    if not data.startswith(OLD_TORCH):
        if data[:2] != b"PK":
            raise AgentImportError("the network inside it was not saved by torch")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:  # torch's own reader knows no limit
            if not is_torch(_members(archive)):
                raise AgentImportError("the network inside it was not saved by torch")
    return load_torch(data)


def _load_msgpack(data: bytes) -> Any:
    import msgpack

    def array(code: int, content: bytes) -> NDArray[Any] | None:
        if code != FLAX_ARRAY:
            raise AgentImportError(f"msgpack extension type {code}; only flax's arrays ({FLAX_ARRAY}) are read")
        shape, dtype, values = msgpack.unpackb(content, strict_map_key=True)
        if not isinstance(dtype, str) or not isinstance(values, bytes):
            raise AgentImportError("a damaged array")
        if dtype == "bfloat16":
            return widened(np.frombuffer(values, "<u2")).reshape([int(size) for size in shape])
        if dtype not in ("float16", "float32", "float64"):
            return None  # counters and random keys
        return np.frombuffer(values, dtype).reshape([int(size) for size in shape])

    return msgpack.unpackb(data, ext_hook=array, strict_map_key=True)


def _leaves(tree: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, NDArray[np.float32] | float]]:
    if isinstance(tree, Mapping):
        if depth > 20:
            raise AgentImportError("nested more than 20 dictionaries deep")
        for key, value in tree.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(tree, torch.Tensor):
        if tree.layout == torch.strided and tree.device.type == "cpu" and tree.dtype.is_floating_point:
            if tree.numel() * tree.element_size() > max(tree.untyped_storage().nbytes(), 1):
                raise AgentImportError(f"{name} claims {tree.numel()} numbers that the file does not hold")
            yield name, tree.detach().float().numpy()
    elif isinstance(tree, np.ndarray) and tree.dtype.kind == "f" and math.prod(tree.shape) == tree.size:
        yield name, tree.astype(np.float32)
    elif isinstance(tree, int | float) and abs(tree) < 1e300:
        yield name, float(tree)
