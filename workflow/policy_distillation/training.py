"""What jobs that compute need: a device, seeds, generators whose state can be kept."""

from __future__ import annotations

import ctypes
import platform
import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .networks import Precision
from .provenance import cpu_info


def prepare_process(seed: int, threads: int) -> None:
    """Seeds, thread count and two CPU settings. Equal seeds and thread counts give equal bits on the CPU.

    Raises ValueError for a seed or a thread count that cannot be.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}; allowed: 0 to {2**64 - 1}")
    if threads < 1:
        raise ValueError(f"threads is {threads}; allowed: 1 or more")
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32: a teacher's Q-values are labels
    # Activations of a big batch exceed glibc's threshold for mmap, so that each update would map, fault in and unmap
    # its memory again. Keep it in the heap: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD of mallopt(3).
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if platform.system() == "Linux" and mallopt is not None:
        for parameter, value in ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 1 << 28)):
            mallopt(parameter, value)


def stream(seed: int, *names: str | int) -> tuple[int, ...]:
    """A seed for one named use, such as ("dataset", "pong", 3), independent of every other use of the same seed."""
    return (seed, *(zlib.crc32(str(name).encode()) for name in names))


def exploration_rng(seed: int | Sequence[int]) -> np.random.Generator:
    """Draws the random actions of whoever plays in emulators of this seed, independent of the emulators themselves."""
    return np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])


def seed_weights(seed: int, *names: str) -> None:
    """Let the next network's first weights come from a stream of their own."""
    torch.manual_seed(int(np.random.SeedSequence(stream(seed, *names)).generate_state(1, np.uint64)[0]))


def select_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one.

    Raises ValueError where a GPU is named that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(f"device: {name!r} is not allowed; allowed: auto, cpu, cuda, cuda:1, ...")
    device, count = torch.device(name), torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        allowed = ", ".join(["auto", "cpu", *(f"cuda:{number}" for number in range(count))])
        here = f"PyTorch finds {count or 'no'} GPU{'s' * (count != 1)}"
        raise ValueError(f"device: {name!r} is not allowed: {here} on this machine; allowed: {allowed}")
    if device.index:  # streams, captures and the GPU's name are of the current one
        torch.cuda.set_device(device)
    return device


def select_precision(name: str, device: torch.device) -> Precision:
    """``auto``: bfloat16 on a GPU or a CPU that multiplies it in hardware, else float32."""
    if name != "auto":
        return "bfloat16" if name == "bfloat16" else "float32"
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)  # older ones emulate it
    else:
        fast = any(flag in cpu_info() for flag in ("amx_bf16", "avx512_bf16"))
    return "bfloat16" if fast else "float32"


def computed(device: torch.device, precision: Precision) -> dict[str, Any]:
    """For metadata: what the last digits of whatever is computed depend on, and with them weights that are learnt."""
    return {"device": device.type, "precision": precision, "threads": torch.get_num_threads()}


def generator_state(rng: np.random.Generator) -> dict[str, Any]:
    """A numpy generator's state as plain values (its integers exceed 64 bits, hence text)."""
    state = rng.bit_generator.state
    return {**state, "state": {key: str(value) for key, value in state["state"].items()}}


def restore_generator(rng: np.random.Generator, state: dict[str, Any]) -> None:
    rng.bit_generator.state = {**state, "state": {key: int(value) for key, value in state["state"].items()}}
