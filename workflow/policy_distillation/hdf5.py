"""HDF5 files, wherever they lie."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py

from .files import NO_LOCKS


def open_hdf5(path: Path, mode: str, **options: Any) -> h5py.File:
    """``h5py.File``, and without HDF5's own locks where the file system has none, which HDF5 takes for an error."""
    try:
        return h5py.File(path, mode, **options)
    except OSError as error:
        code = re.search(r"unable to lock file, errno = (\d+)", str(error))
        if code is None or int(code[1]) not in NO_LOCKS:
            raise
        return h5py.File(path, mode, locking=False, **options)
