"""An exported agent in eight bits: static quantisation, calibrated and then checked on its teacher's recorded play.

Weights are quantised per output channel, activations by their range over the calibration's observations. Pixels are
bytes as they come, so they lose nothing. What is small stays in float32: layer norms, and the last layer, from whose
outputs the best action is read. (With them in eight bits, too, the reference teacher of Pong keeps 75% of its choices
instead of 87%, that of Freeway 94% instead of 98%.)

A policy bears it, for the logits of a student of KL or NLL lie far apart. Q-values do not: those of the best and the
second action often differ by less than a hundredth, and a step of eight bits is no smaller. What is kept is measured on
observations that the calibration has not seen, and said.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..acting import EPSILON
from ..files import file_digest
from ..parts import Part
from ..recording import Dataset, dump_part
from . import ExportError
from .onnx import OnnxAgent, save_model

CALIBRATION = 256
"""Observations, from the first half of a part."""
CHECK = 2048
"""Observations, from the second half."""
BATCH = 64
SHORT = Dataset(hours_per_part=1, steps_per_hour=8_000, envs=8, epsilon=EPSILON)
"""What is recorded where there is no data set: a minute of each of eight games, both halves of it used as above."""


@dataclass(frozen=True)
class Kept:
    """How often an agent in eight bits chooses what it chose in float32."""

    outputs: str
    """What its outputs are: ``q_values`` or ``logits``."""
    agreement: float
    """Share of the check's observations in which both have the same best action."""
    observations: int
    played_by: str
    """Whose play that was: ``teacher``, ``itself`` or ``another agent``."""

    def describe(self) -> str:
        player = {"teacher": "its teacher's play", "itself": "its own play"}.get(self.played_by, "another agent's play")
        text = f"int8 keeps {self.agreement:.1%} of the choices in {self.observations:,} observations of {player}"
        if self.outputs == "q_values":
            text += "; WARNING: Q-values may lie too close together for eight bits: score it, or quantise a KL student"
        return text


def players(file: Path, metadata: Mapping[str, Any]) -> dict[str, str]:
    """Whose play may calibrate an agent, by the SHA-256 of the player's file: its teachers' and its own."""
    return {file_digest(file): "itself", **dict.fromkeys(metadata.get("teachers", {}).values(), "teacher")}


def quantise(path: Path, part_path: Path, output: Path, players: Mapping[str, str], seed: int = 0) -> Kept:
    """Write the agent of the ONNX file ``path`` in eight bits.

    Args:
        part_path: a part of its teacher's data set, or what :func:`record_play` wrote.
        players: see :func:`players`; whose play it was is written into the file.
        seed: which observations are taken.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    agent = OnnxAgent(path)
    (game,) = agent.actions
    with Part(part_path) as part:
        if part.game != game or tuple(part.action_ids) != agent.actions[game]:
            raise ExportError(
                f"{part_path}: data of {part.game} with the actions {part.action_ids} cannot calibrate an agent of "
                f"{game} with the actions {list(agent.actions[game])}"
            )
        rng, half = np.random.default_rng(seed), part.times // 2
        calibration = recorded(part, 0, half, CALIBRATION, rng)
        check = recorded(part, half, part.times, CHECK, rng)
        played_by = players.get(part.teacher, "another agent")
        recorded_play = {"dataset": part.digest, "played_by": played_by, "player": part.teacher}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared, quantised = Path(folder, "prepared.onnx"), Path(folder, "quantised.onnx")
        quant_pre_process(str(path), str(prepared))
        graph = onnx.load(str(prepared)).graph
        quantization.quantize_static(
            str(prepared),
            str(quantised),
            _Reader(calibration),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["Conv", "Gemm", "MatMul", "Relu"],
            nodes_to_exclude=_last_layer(graph),
            extra_options={
                "TensorQuantOverrides": {_pixels(graph): [{"rmin": np.float32(0), "rmax": np.float32(255)}]}
            },
        )
        model = onnx.load(str(quantised))
        description = {**agent.metadata, "int8": {**recorded_play, "observations": len(calibration), "seed": seed}}
        checked = Path(folder, "checked.onnx")
        save_model(model, description, checked)
        kept = Kept(agent.readouts[game].outputs, _agreement(agent, OnnxAgent(checked), check), len(check), played_by)
        description["int8"]["agreement"] = round(kept.agreement, 4)
        save_model(model, description, output)
    return kept


def record_play(player: Path, game: str, protocol: str, path: Path) -> None:
    """Let an agent play for the calibration, where its teacher's data set is not at hand."""
    with contextlib.redirect_stdout(None):  # how far it is, and which steps of games it saw
        dump_part(player, game, protocol, 0, SHORT, 0, path, "cpu")


def recorded(part: Part, start: int, stop: int, count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Observations of a range of times, drawn with replacement: (count, 4, 84, 84)."""
    return part.observations(rng.integers(start, stop, count), rng.integers(0, part.slots, count))


def _pixels(graph: Any) -> str:
    """The name of the pixels once they are numbers: what the first convolution reads."""
    return str(next(node.input[0] for node in graph.node if node.op_type == "Conv"))


def _last_layer(graph: Any) -> list[str]:
    """Names of the last matrix product and of all that follows it."""
    names = [node.name for node in graph.node]
    last = max(number for number, node in enumerate(graph.node) if node.op_type in ("Gemm", "MatMul"))
    return names[last:]


def _agreement(agent: OnnxAgent, other: OnnxAgent, observations: NDArray[np.uint8]) -> float:
    (game,) = agent.actions
    same = [
        agent.q_values(batch, game).argmax(1) == other.q_values(batch, game).argmax(1)
        for batch in np.array_split(observations, max(1, len(observations) // BATCH))
    ]
    return float(np.concatenate(same).mean())


class _Reader:
    """Hands the calibration its observations, a batch at a time."""

    def __init__(self, observations: NDArray[np.uint8]) -> None:
        self._batches = iter(np.array_split(observations, max(1, len(observations) // BATCH)))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"observations": batch}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime advises, through the root logger, to prepare the model as it is prepared here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
