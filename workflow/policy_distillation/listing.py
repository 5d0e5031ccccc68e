"""The list of a data set's parts: what they are, not just their names, so that other data means another list.

One line a part, in order: its name, relative to the list's folder, and the digest of its content.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .dataset_format import DatasetError, read_seal
from .files import atomic_path


def write_listing(parts: Sequence[Path], path: Path) -> None:
    """List parts that lie in one folder with the list. Raises DatasetError for files that are none."""
    lines = [f"{part.name} {read_seal(part).content}\n" for part in parts]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def read_listing(path: Path) -> list[Path]:
    """Where the parts are, in order. Raises DatasetError where one is gone: Snakemake waits for the list alone."""
    parts = [path.parent / line.split()[0] for line in path.read_text(encoding="utf-8").splitlines()]
    for part in parts:
        if not part.exists():
            raise DatasetError(
                f"{path}: lists {part.name}, which is not there; delete the list, make it again (your command with "
                f"{path} as its target) and then type your command, so that nothing that is finished is made again"
            )
    return parts
