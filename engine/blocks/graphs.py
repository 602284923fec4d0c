"""CUDA graphs of a step: recorded once a shape, replayed as one launch.

A step whose work is the same kernels on the same addresses can be recorded and replayed without Python. The manager
here owns what that needs: which shapes are recorded (the first few runs of a shape are eager and count as its
warm-up), the fixed inputs that each run's values are copied into, one memory pool for all recordings, how many are
kept. The device side stands behind :class:`GraphDevice`, so the bookkeeping is tested without a GPU. :func:`refusal`
says in words when a step cannot be recorded at all; nothing is recorded unless ``memory.cuda_graphs`` asks for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

WARM_UPS = 3
"""Eager runs of a shape before it is recorded: lazy initialisation, kernel choice and caches happen in them."""

MOST = 8
"""Recordings kept; the one unused for longest goes first."""


def refusal(
    setting: str,
    device: torch.device,
    *,
    streamed: int = 0,
    offload: bool = False,
    dropout: bool = False,
    processes: int = 1,
) -> str:
    """Why a step is not recorded under ``memory.cuda_graphs``; empty when it may be.

    Args:
        setting: auto, on or off; auto records wherever it can.
        device: where the step runs.
        streamed: blocks whose weights stream.
        offload: block inputs go to host memory between the passes.
        dropout: adapters draw random masks.
        processes: how many share the step.
    """
    if setting == "off":
        return "memory.cuda_graphs = off"
    if device.type != "cuda":
        return f"CUDA graphs need a CUDA device, this is {device.type}"
    if streamed:
        return (
            f"{streamed} blocks stream through the GPU, and the host decides when (memory.blocks_to_swap = 0 records)"
        )
    if offload:
        return "block inputs go to host memory and back, and the host decides when"
    if dropout:
        return "adapters draw other random masks in every step; a recording would repeat one"
    if processes > 1:
        return f"{processes} processes share the step"
    return ""


class GraphDevice(Protocol):
    """Runs, records and replays work on a device."""

    def run(self, work: Callable[[], Any]) -> Any:
        """Run ``work`` eagerly where it will be recorded later."""
        ...

    def record(self, work: Callable[[], Any]) -> tuple[Any, Any]:
        """Record ``work`` without running it: the recording, and its results, whose memory each replay fills.

        Raises:
            RuntimeError: something in it cannot be recorded.
        """
        ...

    def replay(self, recording: Any) -> None:
        """Run what was recorded."""
        ...

    def drop(self, recording: Any) -> None:
        """Give a recording's memory back."""
        ...


class CudaGraphs:
    """The real one: a side stream and one memory pool for all recordings.

    They may share a pool because only one runs at a time and every recording's results stay referenced.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, work: Callable[[], Any]) -> Any:
        """On the side stream, in order with the caller's."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            found = work()
        current.wait_stream(self._stream)
        for tensor in pytree.tree_leaves(found):
            if isinstance(tensor, Tensor):
                tensor.record_stream(current)
        return found

    def record(self, work: Callable[[], Any]) -> tuple[Any, Any]:
        """Into the shared pool; other threads may go on using the device meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            found = work()
        return graph, found

    def replay(self, recording: Any) -> None:
        """On the caller's stream."""
        recording.replay()

    def drop(self, recording: Any) -> None:
        """Its memory returns to the pool."""
        recording.reset()


@dataclass
class _Recording:
    graph: Any
    inputs: tuple[Tensor, ...]
    results: Any


class StepGraphs:
    """Runs a function of tensors through recordings, one a key and shape.

    The function must do the same work on the same addresses each time: read its arguments and whatever else stays in
    place (weights, adapters), write gradients in place, return tensors, decide nothing by their values.

    Attributes:
        reason: why nothing is recorded any more; empty while recording works.
    """

    def __init__(self, device: GraphDevice, most: int = MOST, warm_ups: int = WARM_UPS) -> None:
        self.reason = self._untold = ""
        self._device = device
        self._most = most
        self._warm_ups = warm_ups
        self._runs: dict[Hashable, int] = {}
        self._kept: OrderedDict[Hashable, _Recording] = OrderedDict()

    @property
    def recorded(self) -> int:
        """Recordings kept now."""
        return len(self._kept)

    def run(self, key: Hashable, function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Any:
        """``function(*inputs)``, replayed once it is recorded.

        Args:
            key: what besides the inputs' shapes and dtypes makes the work another.
            function: see the class.
            inputs: on the device; their values are copied into the recording's own.

        Returns:
            What the function returns. Replayed results lie in the recording's memory, until the next run of this key.
        """
        key = (key, *((tuple(tensor.shape), tensor.dtype) for tensor in inputs))
        kept = self._kept.get(key)
        if kept is None:
            runs = self._runs[key] = self._runs.get(key, 0) + 1
            if self.reason or runs <= self._warm_ups:
                return self._device.run(lambda: function(*inputs))
            kept = self._record(key, function, inputs)
            if kept is None:
                return self._device.run(lambda: function(*inputs))
        self._kept.move_to_end(key)
        for fixed, tensor in zip(kept.inputs, inputs, strict=True):
            fixed.copy_(tensor, non_blocking=True)
        self._device.replay(kept.graph)
        return kept.results

    def _record(self, key: Hashable, function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> _Recording | None:
        fixed = tuple(tensor.clone() for tensor in inputs)
        while len(self._kept) >= self._most:
            _, oldest = self._kept.popitem(last=False)
            self._device.drop(oldest.graph)
        try:
            graph, results = self._device.record(lambda: function(*fixed))
        except torch.OutOfMemoryError as err:
            self.reason = self._untold = (
                f"steps run without CUDA graphs: no memory for a recording ({_first_line(err)})"
            )
            return None
        except RuntimeError as err:
            self.reason = self._untold = (
                f"steps run without CUDA graphs: one could not be recorded ({_first_line(err)})"
            )
            return None
        self._kept[key] = _Recording(graph, fixed, results)
        return self._kept[key]

    def take_reason(self) -> str:
        """The reason, the first time it is asked for after a failure; empty otherwise."""
        untold, self._untold = self._untold, ""
        return untold

    def forget(self) -> None:
        """Drop all recordings: what they read has moved (weights released, adapters replaced). They are made anew."""
        for kept in self._kept.values():
            self._device.drop(kept.graph)
        self._kept.clear()
        self._runs.clear()


def _first_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0][:300]
