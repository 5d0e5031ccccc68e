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

from .pickle_limits import LargePickle
from .pickles import Array, Buffer, DType, ForbiddenGlobal, unpickle_arrays
from .torch_files import OLD_TORCH, is_torch, load_torch, unpacked_size

Tensors = dict[str, NDArray[np.float32]]

LARGEST_FILE = 512 * 2**20
"""Bytes of a file, of what it unpacks to, or of its tensors; a DQN has 7 MB, its optimiser twice that."""
LARGEST_SETTINGS = 32 * 2**20
"""Bytes of Stable-Baselines3's JSON, which holds the last observations too; parsed it may take twenty times as many."""
MOST_ENTRIES, DEEPEST, LONGEST_NAME = 20_000, 20, 1000
"""Of a file's dictionaries together; a checkpoint has some hundreds, four deep, of a hundred characters."""
FLAX_ARRAY = 1
"""flax's msgpack extension type for an array: (shape, dtype's name, bytes), packed once more."""
FLAX_TYPES = {"float16": "f2", "float32": "f4", "float64": "f8"}
MOST_VALUES = 1_000_000
"""Of msgpack, settings included."""


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
    except (ForbiddenGlobal, LargePickle) as error:
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
        return _content("gzip of torch", *load_torch_zip(_inflate(data)))
    if data.startswith(OLD_TORCH):
        return _content("torch", *load_torch(data))
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data):
        return _content("safetensors", safetensors.torch.load(data), len(data))
    if data[:1] == b"\x80":
        return _content("pickle", unpickle_arrays(data))
    if data[:1] and (0x81 <= data[0] <= 0x8F or data[0] in (0xDE, 0xDF)):
        return _content("flax msgpack", _load_msgpack(data))
    raise AgentImportError("neither torch, gzip, safetensors, flax msgpack nor a Dopamine checkpoint")


def _content(container: str, tree: Any, held: int = 0, facts: dict[str, Any] | None = None) -> Content:
    """What is in nested dictionaries.

    Args:
        held: bytes that the file holds, where torch has allocated tensors for it.
    """
    tensors: Tensors = {}
    values: dict[str, float] = {}
    for name, leaf in _Tree(held).leaves(tree):
        if isinstance(leaf, int | float):
            values[name] = float(leaf)
        else:
            tensors[name] = leaf
    return Content(container, tensors, facts or {}, values)


def _read_zip(data: bytes) -> Content:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = _members(archive)
        if is_torch(members):
            return _content("torch", *load_torch(data))
        if "policy.pth" in members:
            facts = _stable_baselines3_facts(archive, members)
            return _content("stable-baselines3 zip", *load_torch_zip(archive.read("policy.pth")), facts)
        models = [name for name in members if name == "model.pt" or name.endswith("/model.pt")]
        if len(models) == 1:
            return _content("pfrl", *load_torch_zip(archive.read(models[0])))
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
    """The version, whether the policy divides its inputs and what those are, and how many quantiles an action has, if
    any. ``data`` is JSON; what is pickled inside it stays so."""
    facts: dict[str, Any] = {}
    if "_stable_baselines3_version" in members:
        facts["stable_baselines3"] = archive.read("_stable_baselines3_version").decode("ascii", "replace").strip()[:20]
    if "data" in members:
        if archive.getinfo("data").file_size > LARGEST_SETTINGS:
            raise AgentImportError(f"its member data is larger than {LARGEST_SETTINGS >> 20} MB")
        data = json.loads(archive.read("data"))
        facts["normalize_images"] = bool((data.get("policy_kwargs") or {}).get("normalize_images", True))
        facts["observations"] = str((data.get("observation_space") or {}).get("dtype"))[:20]
        if type(data.get("n_quantiles")) is int:
            facts["n_quantiles"] = data["n_quantiles"]
    return facts


def load_torch_zip(data: bytes) -> tuple[Any, int]:
    """What torch saved in a member of a zip or in a gzip file, as :func:`load_torch` gives it."""
    if not data.startswith(OLD_TORCH):
        if data[:2] != b"PK":
            raise AgentImportError("the network inside it was not saved by torch")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:  # torch's own reader knows no limit
            if not is_torch(_members(archive)):
                raise AgentImportError("the network inside it was not saved by torch")
    return load_torch(data)


def _load_msgpack(data: bytes) -> Any:
    import msgpack

    entries = 0

    def counted(container: Any) -> Any:
        nonlocal entries
        entries += 1 + len(container)
        if entries > MOST_VALUES:
            raise AgentImportError(f"it holds more than {MOST_VALUES} values, so no DQN")
        return container

    def array(code: int, content: bytes) -> Array:
        if code != FLAX_ARRAY:
            raise AgentImportError(f"msgpack extension type {code}; only flax's arrays ({FLAX_ARRAY}) are read")
        shape, dtype, values = msgpack.unpackb(content, strict_map_key=True)
        if not isinstance(dtype, str) or not isinstance(values, bytes):
            raise AgentImportError("a damaged array")
        return Buffer(values, DType(FLAX_TYPES.get(dtype, dtype)), tuple(shape), "C")

    hooks = {"ext_hook": array, "object_hook": counted, "list_hook": counted}
    return msgpack.unpackb(data, strict_map_key=True, max_array_len=MOST_VALUES, **hooks)


class _Tree:
    """Nested dictionaries, as many entries and bytes of them as a network's file has.

    What lies in a file once may be there under any number of names, so entries are counted as they are walked, and
    bytes as they are used: as float32.
    """

    def __init__(self, held: int) -> None:
        self.unclaimed = held
        self.storages: set[int] = set()
        self.entries = self.bytes = 0

    def leaves(self, tree: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, NDArray[np.float32] | float]]:
        """Floating point arrays and plain numbers, by their full names; anything else is passed over."""
        if isinstance(tree, Mapping):
            if depth > DEEPEST:
                raise AgentImportError(f"nested more than {DEEPEST} dictionaries deep")
            for key, value in tree.items():
                self.entries += 1
                if self.entries > MOST_ENTRIES:
                    raise AgentImportError(f"its dictionaries have more than {MOST_ENTRIES} entries, so no DQN")
                if isinstance(key, str | int):
                    yield from self.leaves(value, self._joined(name, str(key)), depth + 1)
        elif isinstance(tree, torch.Tensor):
            if tree.layout == torch.strided and tree.device.type == "cpu" and tree.dtype.is_floating_point:
                self._check_storage(name, tree)
                self._use(name, tree.numel())
                yield name, tree.detach().float().numpy()
        elif isinstance(tree, Array):
            self._use(name, tree.numbers)
            array = tree.value()
            if array is not None:
                yield name, array
        elif isinstance(tree, int | float) and abs(tree) < 1e300:
            yield name, float(tree)

    def _joined(self, name: str, key: str) -> str:
        if len(name) + len(key) >= LONGEST_NAME:
            raise AgentImportError(f"{name[:40]}... has a name of more than {LONGEST_NAME} characters")
        return f"{name}.{key}" if name else key

    def _use(self, name: str, numbers: int) -> None:
        self.bytes += 4 * numbers
        if self.bytes > LARGEST_FILE:
            raise AgentImportError(f"{name}: its tensors are more than {LARGEST_FILE >> 20} MB together, so no DQN")

    def _check_storage(self, name: str, tensor: torch.Tensor) -> None:
        """A tensor must lie within its storage, and all storages together within the file."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.storages:
            self.storages.add(storage.data_ptr())
            self.unclaimed -= storage.nbytes()
        if self.unclaimed < 0 or tensor.numel() * tensor.element_size() > max(storage.nbytes(), 1):
            raise AgentImportError(f"{name} claims {tensor.numel()} numbers that the file does not hold")
