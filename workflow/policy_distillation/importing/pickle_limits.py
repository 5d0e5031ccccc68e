"""What a pickle would make, before it runs.

A pickle is a program, so few bytes can ask for much: one is an empty list, and two make a tuple of twice the last one,
whose hash takes as long as all that it holds is large. Here the program's steps are read, not carried out.
"""

from __future__ import annotations

import pickletools
from typing import IO

MOST_STEPS = 5_000_000
"""A checkpoint with its optimiser has thousands; Dopamine's, with the scores of all its episodes, up to a million."""
LARGEST_KEY = 100_000
"""Objects in a tuple, those in its parts counted wherever they are used."""
CHANGING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD", "LIST", "DICT")
"""Steps that leave what is no part of a key, or that was counted before."""


class LargePickle(ValueError):
    """A pickle that would make more than any checkpoint needs."""


def check_pickle(file: IO[bytes]) -> None:
    """Raise LargePickle, or ValueError or LookupError for a damaged one; read up to the pickle's end."""
    stack: list[int | None] = []  # how many objects each thing on the pickle's stack holds; None is a mark
    memo: dict[object, int] = {}
    for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if step == MOST_STEPS:
            raise LargePickle(f"the pickle has more than {MOST_STEPS} steps, so it is no checkpoint of a network")
        if opcode.name == "MARK":
            stack.append(None)
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
