"""What a pickle would make, before it runs.

A pickle is a program, so few bytes can ask for much: one is an empty list, and two make a tuple of twice the last one,
whose hash takes as long as all that it holds is large. Here the program's steps are read, not carried out.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import IO

MOST_STEPS = 5_000_000
"""A checkpoint with its optimiser has thousands; Dopamine's, with the scores of all its episodes, up to a million."""
LARGEST_KEY = 100_000
"""Objects in a tuple, those in its parts counted wherever they are used."""
CHANGING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD", "LIST", "DICT")
"""Steps that leave what is no part of a key, or that was counted before."""


MOST_COPIED = 512 * 2**20
"""Bytes that calls may copy; a checkpoint's copy next to none."""
OBJECT_BYTES = 64
"""Of an object, at the least."""


class LargePickle(ValueError):
    """A pickle that would make more than any checkpoint needs."""


class _Known(int):
    """One object, of which more is known: the name that the pickle looks up, or that it is the empty tuple."""

    name: str

    def __new__(cls, name: str) -> _Known:
        known = super().__new__(cls, 1)
        known.name = name.replace(" ", ".").replace("__builtin__.", "builtins.")
        return known


NOTHING = _Known("()")
"""What a function is given that copies nothing, such as the empty dictionary that every tensor brings."""


def check_pickle(file: IO[bytes], copies: Callable[[str], bool] | None = None) -> None:
    """Raise LargePickle, or ValueError or LookupError for a damaged one; read up to the pickle's end.

    Args:
        copies: whether calling a name may copy what it is given; so does whatever is built. Raises ValueError for a
            name that is not to be called. None: whoever carries the pickle out copies nothing.
    """
    stack: list[int | None] = []  # how many objects each thing on the pickle's stack holds; None is a mark
    memo: dict[object, int] = {}
    text = copied = 0
    for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if step == MOST_STEPS:
            raise LargePickle(f"the pickle has more than {MOST_STEPS} steps, so it is no checkpoint of a network")
        text += len(argument) if isinstance(argument, str | bytes) else 0
        if copies and (opcode.name == "BUILD" or (opcode.name == "REDUCE" and _copies(stack, copies))):
            copied += step * OBJECT_BYTES + text  # all that there is so far, at the most
            if copied > MOST_COPIED:
                raise LargePickle("the pickle copies what it holds again and again")
        if opcode.name == "MARK":
            stack.append(None)
        elif opcode.name == "GLOBAL":
            stack.append(_Known(str(argument)))
        elif opcode.name == "EMPTY_TUPLE":
            stack.append(NOTHING)
        elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1] or 1
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif opcode.name == "DUP":
            stack.append(stack[-1])
        else:
            size = 1 + _taken(stack, opcode)
            if size > LARGEST_KEY and opcode.name not in CHANGING:
                raise LargePickle(f"the pickle holds a tuple of more than {LARGEST_KEY} objects, one within the other")
            stack.extend([1 if opcode.name in CHANGING else size] * len(opcode.stack_after))


def _copies(stack: list[int | None], copies: Callable[[str], bool]) -> bool:
    called, arguments = stack[-2:]
    if not isinstance(called, _Known):
        raise ValueError("a pickle that calls what is no name")
    return copies(called.name) and arguments is not NOTHING


def _taken(stack: list[int | None], opcode: pickletools.OpcodeInfo) -> int:
    """How many objects a step takes from the stack."""
    size, below = 0, len(opcode.stack_before)
    if pickletools.markobject in opcode.stack_before:
        below = opcode.stack_before.index(pickletools.markobject)
        while (top := stack.pop()) is not None:
            size += top
    for _ in range(below):
        size += stack.pop() or 0
    return size
