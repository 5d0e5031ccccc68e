"""Files of torch.save, read without executing anything: tensors, plain containers and plain values."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Sequence
from typing import Any

import torch

from .pickle_limits import check_pickle
from .pickles import ForbiddenGlobal, Inert

OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch.save began before version 1.6."""
FORGOTTEN = (
    *(f"{module}.multiarray.{name}" for module in ("numpy.core", "numpy._core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float16", "Float32", "Float64", "Int32", "Int64", "Bool")),
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"pathlib.{kind}" for kind in ("Path", "PosixPath", "WindowsPath", "_local.PosixPath", "_local.WindowsPath")),
)
"""Names of what often lies beside the weights, such as a best score or arguments: each stands for a class of this
project that takes anything and forgets it."""
COPYING = ("collections.OrderedDict", "collections.Counter", "builtins.set", "torch.Size")
"""Of what torch lets a file call: what holds a copy of what it is given."""
HARMLESS = (*FORGOTTEN, "_codecs.encode", "builtins.complex", "torch.device", "torch.serialization._get_layout")
"""What does not; beside them whatever rebuilds a tensor."""


def is_torch(members: Sequence[str]) -> bool:
    """Whether a zip with these members is one that torch.save wrote."""
    return any(name.endswith("/data.pkl") for name in members)


def unpacked_size(archive: zipfile.ZipFile) -> int:
    """Bytes of all members of a zip together, as it says itself."""
    return sum(info.file_size for info in archive.infolist())


def load_torch(data: bytes) -> tuple[Any, int]:
    """What torch.save was given, and how many bytes of tensors there can be in the file: of those of an older one torch
    allocates as many as it claims.

    Raises ForbiddenGlobal with the name of what the file wants built, or whatever damaged bytes lead to. The size of
    what a zip unpacks to is to be known before.
    """
    if not data.startswith(OLD_TORCH):
        data = _repacked(data)
    held = _check_pickles(data)
    try:
        with torch.serialization.safe_globals([(Inert, name) for name in FORGOTTEN]):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), held
    except pickle.UnpicklingError as error:
        raise ForbiddenGlobal(_reason(str(error))) from None


def _repacked(data: bytes) -> bytes:
    """A zip of what Python finds in one, for torch, whose own reader may find other members in the same bytes.

    Raises ValueError for two members with the same name, in whatever case: torch may take either.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(content, "w") as copy:
        names = archive.namelist()
        if len({name.lower() for name in names}) < len(names):
            raise ValueError("two members of the same name")
        for name in names:
            copy.writestr(name, archive.read(name))
    return content.getvalue()


def _may_copy(name: str) -> bool:
    """Whether a function that torch lets a file call may copy much; those that make tensors see to the file's size.
    Raises ForbiddenGlobal for those that ask for memory by a number, and for all others."""
    if name in COPYING:
        return True
    if name in HARMLESS or name.startswith(("torch._utils._rebuild_", "torch._tensor._rebuild_")):
        return False
    raise ForbiddenGlobal(_reason(f"GLOBAL {name.removeprefix('builtins.')}"))


def _check_pickles(data: bytes) -> int:
    """Bytes that the file holds, once it is known that its pickles make something bearable."""
    if data.startswith(OLD_TORCH):
        file = io.BytesIO(data)
        for _ in range(5):  # a number, a version, the system, the tree, the names of its storages
            check_pickle(file, _may_copy)
        return len(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            if name.lower().endswith("data.pkl"):
                check_pickle(io.BytesIO(archive.read(name)), _may_copy)
        return unpacked_size(archive)


def _reason(message: str) -> str:
    """torch's message first tells how to switch its safety off, and only then what was wrong."""
    culprit = re.search(r"GLOBAL ([\w.]{1,100})", message)
    if culprit:
        return (
            f"it asks for {culprit[1]!r}, which no file of tensors needs; where the agent was trained, save its "
            f"tensors alone: torch.save(model.state_dict(), path)"
        )
    lines = [line.strip() for line in message.splitlines() if "error:" in line.lower()]
    return f"it holds more than tensors and plain values ({' '.join(lines)[:100] or 'damaged'})"
