"""What made a CSV: a JSON file beside it, since CSV has no place for it. ``scores.csv`` has ``scores.csv.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import atomic_path, copy_file, file_digest, strict_json
from .provenance import provenance


class SidecarError(ValueError):
    """A CSV of unknown or altered origin. The message is one line for the user."""


def sidecar_path(csv: Path) -> Path:
    return csv.with_name(f"{csv.name}.json")


def write_sidecar(csv: Path, facts: Mapping[str, Any], made_by: Mapping[str, Any] | None = None) -> None:
    """Write ``facts`` beside a finished CSV, with its digest and the commit, software and hardware that made it.

    Args:
        made_by: :func:`provenance` as it was when what took long began: code may be edited meanwhile.
    """
    with atomic_path(sidecar_path(csv)) as temporary:
        content = {**facts, "sha256": file_digest(csv), **(made_by or provenance())}
        temporary.write_text(strict_json(content, indent=1, default=str) + "\n", encoding="utf-8")


def read_sidecar(csv: Path) -> dict[str, Any]:
    """What made a CSV. Raises SidecarError where that is not known, or the CSV is not the one that was written."""
    path = sidecar_path(csv)
    if not csv.is_file():
        raise SidecarError(f"{csv}: {'a folder, not a file' if csv.is_dir() else 'no such file'}")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SidecarError(f"{csv}: nothing is known of what made it: {path.name} is missing") from None
    except (OSError, ValueError, RecursionError):
        raise SidecarError(f"{path}: not readable as JSON") from None
    if not isinstance(facts, dict) or facts.get("sha256") != file_digest(csv):
        raise SidecarError(f"{csv}: altered since it was written (its digest is not the one in {path.name})")
    return facts


def copy_with_sidecar(csv: Path, copy: Path) -> None:
    """Copy a CSV and what is known of what made it."""
    copy_file(csv, copy)
    copy_file(sidecar_path(csv), sidecar_path(copy))
