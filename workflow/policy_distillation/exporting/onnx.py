"""An agent of one game as one ONNX file: raw frames in, one number an action out, and what they mean in its metadata.

In: ``observations``, uint8 (batch, 4, 84, 84), the oldest frame first. Out: ``outputs``, float32 (batch, actions).
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..atari import SIDE, STACK
from ..files import atomic_path
from ..networks import Agent, Precision
from ..readouts import Readout
from . import ExportError, need

FORMAT = "policy_distillation.onnx/1"
OPSET = 20
"""Version of ONNX's operators; onnxruntime reads it since 1.17."""


class OneGame(nn.Module):
    """An agent as a function of its observations alone."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent, (self.game,) = agent, agent.actions

    def forward(self, observations: Tensor) -> Tensor:
        outputs: Tensor = self.agent(observations, self.game)
        return outputs


def export_onnx(agent: Agent, metadata: Mapping[str, Any], path: Path) -> None:
    """Write an agent of one game.

    Args:
        metadata: of the agent's file.
    """
    import onnx

    (game, ids), *_ = agent.actions.items()
    description = {
        "format": FORMAT,
        "game": game,
        "action_ids": list(ids),
        "readout": agent.readouts[game].to_json(),
        "observations": f"uint8 (batch, {STACK}, {SIDE}, {SIDE}), the oldest frame first",
        "protocol": metadata["protocol"],
        "kind": metadata.get("kind"),
        "agent": metadata["digest"],
    }
    # Channels-last, as the agent would else make it: the graph needs no node for that.
    example = torch.zeros(2, SIDE, SIDE, STACK, dtype=torch.uint8).permute(0, 3, 1, 2)
    with _quiet():
        program = torch.onnx.export(
            OneGame(agent.cpu()).eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["observations"],
            output_names=["outputs"],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param, "the exporter took the example's batch for all"
    save_model(model, description, path)
    onnx.checker.check_model(str(path), full_check=True)


def save_model(model: Any, description: Mapping[str, Any], path: Path) -> None:
    """Write an ONNX model with ``description``, whose values are kept as JSON, for its metadata."""
    import onnx

    for node in model.graph.node:  # the exporter's notes on each node name the folders of whoever ran it
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in description.items()})
    with atomic_path(path) as temporary:
        onnx.save_model(model, str(temporary))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of what no user can change: that torchvision is not installed, that its own calls are old."""
    loggers = [logging.getLogger("torch.onnx"), logging.getLogger("torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class OnnxAgent:
    """An exported agent that can be scored as the agent itself can: on the CPU, with one thread.

    Raises ExportError for a file that :func:`export_onnx` did not write, and where onnxruntime is missing.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path = Path(path)
        if not path.is_file():
            raise ExportError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}")
        need(f"{path}: an agent in ONNX", "onnx", "onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
            self.metadata = _description(self._session.get_modelmeta().custom_metadata_map)
            game, ids = self.metadata["game"], self.metadata["action_ids"]
            self.readouts = {str(game): Readout.from_json(self.metadata["readout"])}
            self.actions = {str(game): tuple(int(action) for action in ids)}
        except Exception as error:  # onnxruntime has an error of its own for each of its layers
            line = " ".join(str(error).split())[:200]
            raise ExportError(f"{path}: not an agent in ONNX ({type(error).__name__}: {line})") from None

    device = torch.device("cpu")

    def frozen(self, precision: Precision) -> OnnxAgent:
        """Itself: its weights never change."""
        return self

    def q_values(
        self, observations: NDArray[np.uint8], game: str, precision: Precision = "float32"
    ) -> NDArray[np.float32]:
        """Outputs (batch, actions), whatever they are; ``precision`` is the file's own.

        Raises ExportError for others: the emulators would wait for ever for an action that they do not have.
        """
        (outputs,) = self._session.run(None, {"observations": observations})
        if outputs.shape != (expected := (len(observations), len(self.actions[game]))):
            raise ExportError(f"{self._path}: its outputs are {outputs.shape}, expected {expected} for its action_ids")
        values: NDArray[np.float32] = outputs
        return values


def _description(properties: Mapping[str, str]) -> dict[str, Any]:
    description = {key: json.loads(value) for key, value in properties.items()}
    if description.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT}")
    return description
