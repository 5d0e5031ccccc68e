"""Data on file systems that know no locks."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import h5py
import pytest
from policy_distillation.hdf5 import open_hdf5

open_file = h5py.File


def refusing(code: int) -> Any:
    """``h5py.File`` where a lock is answered with an error, in HDF5's words."""

    def file(path: Path, mode: str, locking: bool = True, **options: Any) -> h5py.File:
        if locking:
            what = f"unable to lock file, errno = {code}, error message = '{os.strerror(code)}'"
            raise OSError(f"[Errno {code}] Unable to synchronously create file ({what})")
        return open_file(path, mode, locking=False, **options)

    return file


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_files_are_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(h5py, "File", refusing(code))
    with open_hdf5(tmp_path / "a.h5", "w", userblock_size=512) as file:
        file["x"] = 3
    with open_hdf5(tmp_path / "a.h5", "r") as file:
        assert (file["x"][()], file.userblock_size) == (3, 512)


def test_a_file_that_another_process_writes_stays_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h5py, "File", refusing(errno.EAGAIN))
    with pytest.raises(OSError, match="unable to lock file, errno = 11"):
        open_hdf5(tmp_path / "a.h5", "w")


def test_what_is_no_hdf5_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"nothing")
    with pytest.raises(OSError, match="file signature not found"):
        open_hdf5(tmp_path / "a.h5", "r")
