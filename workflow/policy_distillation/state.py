"""The state that an interrupted run goes on from: a folder beside the outputs, which success removes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from .files import atomic_path, discard, file_digest, hold_lock

FORMAT = "policy_distillation.state/5"


class State:
    """A folder with ``state.pt``, and files beside it for what is too large to lie in it.

    It is tied to the settings that made it: under other settings a run starts afresh, and finds the old state again
    when the old settings are back. While a process holds it, a second one is refused
    (:class:`~policy_distillation.files.Locked`): the orphan of a killed workflow and its successor must not write over
    each other.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self._lock = hold_lock(folder / "lock")
        text = FORMAT + json.dumps(settings, sort_keys=True)
        self._fingerprint = hashlib.sha256(text.encode()).hexdigest()
        self._files: dict[str, dict[str, str]] = {}

    def save(
        self,
        content: Mapping[str, Any],
        files: Mapping[str, Callable[[Path], None]],
        needed: Iterable[Path] = (),
    ) -> None:
        """Keep tensors and plain values, atomically, and what ``files`` write. A kill leaves the state before or after.

        A file has two names, which states take in turn: what a kill left of one is overwritten by the next try.

        Args:
            needed: other files in the folder, written once, without which this state is of no use. File systems that
                purge what is old take them first.
        """
        written = {}
        for name, write in files.items():
            before = self._files.get(name, {}).get("name")
            path = self.folder / (f"{name}-1.h5" if before == f"{name}-0.h5" else f"{name}-0.h5")
            write(path)
            written[name] = {"name": path.name, "sha256": file_digest(path)}
        for path in needed:
            written[path.name] = self._files.get(path.name) or {"name": path.name, "sha256": file_digest(path)}
        buffer = io.BytesIO()  # torch's own writer does not say that a disk is full
        torch.save({**content, "files": written, "fingerprint": self._fingerprint}, buffer)
        with atomic_path(self.folder / "state.pt") as temporary:
            temporary.write_bytes(buffer.getbuffer())
        self._files = written
        kept = {file["name"] for file in written.values()}
        for path in (self.folder / f"{name}-{number}.h5" for name in files for number in range(2)):
            if path.name not in kept and path.exists():
                discard(path)

    def load(self) -> dict[str, Any] | None:
        """The newest state with its tensors on the CPU, or None, said aloud, where there is none for these settings.

        Raises OSError where it cannot be read just now: what is whole is not given up for that.
        """
        path, mine = self.folder / "state.pt", self.folder / self._fingerprint[:12]
        if not path.exists() and (mine / path.name).exists():
            _move(mine, self.folder)
        if not path.exists():
            return None
        content = io.BytesIO(path.read_bytes())
        try:
            state = torch.load(content, map_location="cpu", weights_only=True)
            fingerprint, files = state["fingerprint"], state["files"]
        except MemoryError:
            raise
        except Exception as error:  # torch reports damage in many ways; none of them is worth a lost night
            aside = path.with_name("state.unreadable.pt")
            path.replace(aside)
            print(f"{path}: unreadable ({type(error).__name__}), kept as {aside.name}; starting afresh", flush=True)
            return None
        if fingerprint != self._fingerprint:
            aside = self.folder / fingerprint[:12]
            aside.mkdir(exist_ok=True)
            _move(self.folder, aside)
            if (mine / path.name).exists():
                return self.load()
            print(f"{path}: made under other settings; starting afresh; kept in {aside.name}, for those", flush=True)
            return None
        for file in files.values():
            beside = self.folder / file["name"]
            if not beside.is_file() or file_digest(beside) != file["sha256"]:
                print(f"{beside}: missing or damaged, so {path.name} is of no use; starting afresh", flush=True)
                return None
        self._files = files
        return dict(state)

    def stored(self, name: str) -> Path:
        """The file that belongs to the state that was saved or loaded last."""
        return self.folder / self._files[name]["name"]

    def remove(self) -> None:
        """After success: delete the folder. What cannot be deleted is said and left: the work itself is done.

        ``state.pt`` goes first, so that a kill in the middle leaves no state that lacks a piece. The lock's file goes
        while it is held; network file systems keep an open file under another name until it is closed.
        """
        paths = [self.folder / "state.pt"]
        try:
            paths += self.folder.iterdir()
        except OSError as error:
            print(f"{self.folder}: not emptied ({error.strerror}); it is no longer needed", flush=True)
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                discard(path)
        self._lock.close()
        with contextlib.suppress(OSError):  # left empty, at worst
            self.folder.rmdir()


def _move(source: Path, target: Path) -> None:
    """Move the files of a state, ``state.pt`` last: it tells where a kill in the middle left the others to be."""
    paths = [path for path in source.iterdir() if path.is_file() and path.name != "lock"]
    for path in sorted(paths, key=lambda path: path.name == "state.pt"):
        path.replace(target / path.name)
    with contextlib.suppress(OSError):  # the one with the lock is not empty
        source.rmdir()
