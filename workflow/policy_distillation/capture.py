"""Whole updates as CUDA graphs.

An update of a network of this size is a few hundred kernels, most of which take less time than their launch. Captured
once and replayed, they are launched together.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3
"""Updates before the capture: in them cuDNN chooses its algorithms and the optimiser makes its state."""


class Captured:
    """``update``, replayed as a graph from its fourth call on if its inputs are on a GPU; elsewhere simply called.

    Args:
        update: takes tensors of the same shapes at every call and returns one; works on the same parameters every
            time and never asks the GPU for a value. Its optimiser is capturable (:func:`make_optimizer`).
    """

    def __init__(self, update: Callable[..., Tensor]) -> None:
        self._update, self._calls, self._refused = update, 0, False
        self._graph: torch.cuda.CUDAGraph | None = None

    @property
    def captured(self) -> bool:
        return self._graph is not None

    def __call__(self, *inputs: Tensor) -> Tensor:
        if not inputs[0].is_cuda or self._refused:
            return self._update(*inputs)
        self._calls += 1
        if self._calls <= WARM_UP:  # on a stream of their own, as a capture wants it
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                result = self._update(*inputs)
            torch.cuda.current_stream().wait_stream(stream)
            return result
        if self._graph is None:
            self._inputs, graph = [tensor.clone() for tensor in inputs], torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph):  # records, and does not run
                    self._result = self._update(*self._inputs)
            except RuntimeError as error:  # slower is better than not at all
                print(f"updates run kernel by kernel, as they could not be captured: {error}", flush=True)
                self._refused = True
                return self._update(*inputs)
            self._graph = graph
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return self._result.clone()
