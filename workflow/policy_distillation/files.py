"""Files that are whole or absent, their digests, and locks that die with their owner. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system that knows no locks answers."""


class Locked(RuntimeError):
    """Somebody else works there. The message is one line for the user."""


def hold_lock(path: Path) -> TextIO:
    """Lock a file for as long as the returned handle stays open; the kernel releases it however the process ends.

    Raises Locked where somebody holds it, and OSError where it cannot be written. A file system that knows no locks
    (some mounts of Lustre and NFS) is used without, and that is said.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (the caller keeps it open)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise Locked(f"{path.parent}: in use by {owner or 'another process'}; wait for it or stop it") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        print(f"{path.parent}: this file system has no locks, so nothing keeps a second process away", flush=True)
    if not _is_at(file, path):  # its last owner removed it meanwhile, so that another process locks another file there
        file.close()
        return hold_lock(path)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.datetime.now():%Y-%m-%d %H:%M}\n")
    file.flush()
    return file


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def written_alone(path: Path) -> Iterator[None]:
    """Keep others from writing ``path`` meanwhile, by a lock beside it that is gone afterwards. Raises Locked."""
    lock = path.with_name(f".{path.name}.lock")
    with hold_lock(lock):
        try:
            yield
        finally:
            discard(lock)


def check_output(path: Path, inputs: Iterable[Path] = (), folder: bool = False) -> None:
    """Refuse an output before the work for it begins; what is there stays as it is.

    Args:
        inputs: files that are still needed.
        folder: the output is a folder, which may be there already.

    Raises OSError where it cannot be written, and ValueError where it is one of the inputs.
    """
    try:
        if path.is_dir() and not folder:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        parent = (path if folder else path.parent).absolute()
        there = next(place for place in (parent, *parent.parents) if place.exists())
        tempfile.TemporaryFile(dir=there).close()  # permissions do not tell: root has them in /sys, too
        same = path.exists() and any(file.exists() and file.samefile(path) for file in inputs)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    if same:
        raise ValueError(f"{path}: this is an input; choose another --output")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``; on success synced and renamed to it, on failure removed.

    Whoever looks finds the old file or the new one, never half of it, even after a power cut. What a kill leaves under
    the temporary name is overwritten by the next try. An OSError about the temporary name is raised about ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            _sync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and str(error.filename) == str(temporary):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    with contextlib.suppress(OSError):  # the file is there: a folder that cannot be synced undoes nothing
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def copy_file(source: Path, target: Path) -> None:
    """Copy what a file holds, by :func:`atomic_path`."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def discard(path: Path) -> None:
    """Delete a file that is no longer needed. One that cannot be deleted is said and left: it undoes no work."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        print(f"{path}: not removed ({error.strerror}); it is no longer needed", flush=True)


def _sync(file: int) -> None:
    """Wait until a file is on the disk, where its file system can say so (some network mounts cannot)."""
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def strict_json(value: Any, **options: Any) -> str:
    """``value`` as every reader takes it: NaN and infinities, which JSON does not have, are null.

    Args:
        options: those of json.dumps.
    """

    def plain(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {key: plain(entry) for key, entry in part.items()}
        if isinstance(part, (list, tuple)):
            return [plain(entry) for entry in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(plain(value), allow_nan=False, **options)
