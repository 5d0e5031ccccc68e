"""An unpickler that can build numpy arrays and plain containers, and nothing else.

A pickle is a program; its power lies in the names that it may look up. Here no name is ever looked up: each of the few
that a JAX checkpoint needs stands for a class of this module that holds data and does nothing. Everything else,
builtins included, is refused by name before it could be called. Each class has a ``__setstate__``: where there is none,
a pickle may write into the class itself.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .pickle_limits import check_pickle


class ForbiddenGlobal(ValueError):
    """The pickle asks for a name that is not needed to hold arrays."""


class Inert:
    """Takes any arguments and any state, and forgets them: optimiser states, random keys, shardings."""

    __slots__ = ()

    def __new__(cls, *arguments: object, **names: object) -> Inert:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


class BFloat16(Inert):
    """``ml_dtypes.bfloat16``, which numpy does not have: the upper half of a float32."""

    __slots__ = ()


class Mapping(Inert):
    """A dictionary by another name: the one that it is made of, uncopied, or a new one."""

    __slots__ = ()

    def __new__(cls, content: object = None) -> dict[Any, Any]:  # type: ignore[misc]
        return content if isinstance(content, dict) else {}


class DType:
    """What a pickled ``numpy.dtype`` says: its code, such as f4, and its byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        self.code, self.order = "bfloat16" if code is BFloat16 else _text(code), "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = _text(state[1])


def _text(value: object) -> str:
    """Text as it is; what else a pickle puts in its place may take for ever to write down."""
    return value if isinstance(value, str) else ""


SIZES = {"bfloat16": 2, "f2": 2, "f4": 4, "f8": 8}
"""Bytes of a number, by the codes of the types that weights have."""


class Array:
    """What a pickled ``numpy.ndarray`` says; memory is asked for only once its sizes are known to fit its bytes."""

    __slots__ = ("state",)

    def __init__(self, *arguments: object) -> None:
        self.state: tuple[Any, ...] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state[-4:]  # version, which old pickles lack, then shape, dtype, Fortran order, bytes

    @property
    def numbers(self) -> int:
        """How many :meth:`value` holds; 0 for an array of integers, objects or records, which hold no weights."""
        if self.state is None:
            return 0
        _, dtype, _, content = self.state
        if not isinstance(dtype, DType) or dtype.code not in SIZES:
            return 0
        if not isinstance(content, bytes | bytearray):
            raise ValueError("a damaged array")
        return len(content) // SIZES[dtype.code]

    def value(self) -> NDArray[np.float32] | None:
        """The array; None where it holds no :attr:`numbers`."""
        if not self.numbers or self.state is None:
            return None
        shape, dtype, fortran, content = self.state
        return _array(content, dtype, shape, "F" if fortran else "C")


class Buffer(Array):
    """``numpy._core.numeric._frombuffer``: how pickle protocol 5 writes an array."""

    __slots__ = ()

    def __init__(self, content: object, dtype: object, shape: object, order: object) -> None:
        self.state = (shape, dtype, order == "F", content)


class JaxArray(Array):
    """``jax``'s wrapper: (numpy's function, its arguments, the array's state, what JAX knows of it)."""

    __slots__ = ()

    def __init__(self, function: object, arguments: object, state: tuple[Any, ...], knowledge: object) -> None:
        self.__setstate__(state)


ADMITTED: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): Inert,
    ("numpy", "dtype"): DType,
    ("ml_dtypes", "bfloat16"): BFloat16,
    ("flax.core.frozen_dict", "FrozenDict"): Mapping,
    ("collections", "OrderedDict"): Mapping,
    ("jax._src.array", "_reconstruct_array"): JaxArray,
    ("jax._src.device_array", "reconstruct_device_array"): JaxArray,
}
for module in ("numpy.core", "numpy._core"):
    ADMITTED[f"{module}.multiarray", "_reconstruct"] = Array
    ADMITTED[f"{module}.multiarray", "scalar"] = Inert
    ADMITTED[f"{module}.numeric", "_frombuffer"] = Buffer
STRANGERS = ("optax.", "jax.", "jaxlib.", "flax.", "ml_dtypes")
"""Libraries whose other classes become :class:`Inert`: an optimiser's state lies beside the weights."""


class _Unpickler(pickle._Unpickler):  # the one in Python: C's asks for memory before it checks
    def find_class(self, module: str, name: str) -> type:
        if (module, name) in ADMITTED:
            return ADMITTED[module, name]
        if module.startswith(STRANGERS):
            return Inert
        raise ForbiddenGlobal(f"the pickle asks for {f'{module}.{name}'[:100]!r}, which no checkpoint of arrays needs")


def unpickle_arrays(data: bytes) -> Any:
    """The pickled tree, with :class:`Array` as its leaves.

    Raises LargePickle, ForbiddenGlobal, or whatever damaged bytes lead to.
    """
    check_pickle(io.BytesIO(data))
    return _Unpickler(io.BytesIO(data)).load()


def _array(content: bytes | bytearray, dtype: DType, shape: object, order: str) -> NDArray[np.float32]:
    if not isinstance(shape, tuple) or len(shape) > 8 or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
        raise ValueError("a damaged array")
    code = "u2" if dtype.code == "bfloat16" else dtype.code
    read = np.frombuffer(content, np.dtype(code).newbyteorder(">" if dtype.order == ">" else "<"))
    if dtype.code == "bfloat16":
        read = (read.astype(np.uint32) << 16).view(np.float32)  # it is the upper half of a float32
    if math.prod(shape) != read.size:
        raise ValueError(f"an array of shape {shape} with {read.size} numbers")
    return read.reshape(shape, order="F" if order == "F" else "C").astype(np.float32)
