"""Where a step's time goes, measured where the work happens: the host's clock on a CPU, the stream on a GPU.

A GPU runs behind the host, so host times say how long launching took, not computing. Events recorded in the stream
cost a few microseconds and make nothing wait; they are read with the step's loss.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor


class Stopwatch:
    """Consecutive parts of one step; the time between two marks belongs to the second one's part."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []
        self.mark("")

    def mark(self, part: str) -> None:
        """End ``part`` here."""
        if not self._on_gpu:
            self._marks.append((part, time.perf_counter()))
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append((part, event))

    def wait(self) -> None:
        """Wait until the device has reached the last mark."""
        last = self._marks[-1][1]
        if isinstance(last, torch.cuda.Event):
            last.synchronize()

    def ready(self) -> bool:
        """Whether the device has reached the last mark."""
        last = self._marks[-1][1]
        return not isinstance(last, torch.cuda.Event) or bool(last.query())

    def seconds(self) -> dict[str, float]:
        """Seconds by part; on a GPU only after :meth:`wait`."""
        spent: dict[str, float] = {}
        for (_, begin), (part, end) in zip(self._marks, self._marks[1:], strict=False):
            if isinstance(begin, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
                took = begin.elapsed_time(end) / 1000
            else:
                took = float(end) - float(begin)  # type: ignore[arg-type]
            spent[part] = spent.get(part, 0.0) + took
        return spent


def to_host(*values: Tensor) -> Tensor:
    """Start copying values to the host in one row, float32; readable once a mark made afterwards is reached."""
    stacked = torch.cat([value.detach().float().reshape(-1) for value in values])
    if stacked.device.type != "cuda":
        return stacked
    pinned = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True)
    pinned.copy_(stacked, non_blocking=True)
    return pinned
