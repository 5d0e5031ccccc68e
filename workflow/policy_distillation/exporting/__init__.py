"""Agents and data sets for other people's tools.

``onnx`` writes an agent of one game as an ONNX file and plays it, ``int8`` makes that four times smaller, ``libraries``
writes the files of Stable-Baselines3 and CleanRL, ``hub`` a folder for the model hub, ``minari`` a data set for Minari,
and ``deployment`` measures what all this costs and gains. ``command`` is the command line's ``export``. What each needs
beyond the package itself is imported when it is used.
"""

from __future__ import annotations

import importlib

ONNX_MODULES = ("onnx", "onnxscript", "onnxruntime")
"""What writing an ONNX file and playing it needs, the extra ``onnx``."""


class ExportError(ValueError):
    """Something that cannot be exported as asked. The message is one line for the user."""


def need(who: str, extra: str, *modules: str) -> None:
    """Raise ExportError, which says what to install, unless the modules of an optional dependency are there."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ExportError(f"{who} needs {error.name}: pip install 'policy-distillation[{extra}]'") from None
