"""A run's vital signs in a few lines under the curve: step time and its parts, learning rate, memory, GPU."""

from __future__ import annotations

import math
from array import array
from typing import ClassVar

from textual.geometry import Size
from textual.strip import Strip

from tui.units import number, short_time
from tui.view import RunView
from tui.widgets.cells import Run, strip_of
from tui.widgets.figures import LABEL, Figures, held_parts

RAMP, ASCII_RAMP = " ▁▂▃▄▅▆▇█", " ._-=+*#@"


class Vitals(Figures):
    """The figures that matter while training, one line each."""

    COMPONENT_CLASSES: ClassVar[set[str]] = Figures.COMPONENT_CLASSES

    _lines = 0

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Two lines of a GPU's own where there is one."""
        return self._needed

    @property
    def _needed(self) -> int:
        memory = self.view.memory
        on_gpu = memory is not None and memory.vram_total_gb > 0
        return 3 + 2 * on_gpu + (on_gpu and self.view.memory_held is not None)

    def show(self, view: RunView) -> None:
        """Take the newest figures; the first memory sample may tell of a GPU."""
        super().show(view)
        if self._needed != self._lines:
            self._lines = self._needed
            self.refresh(layout=True)

    def paint(self, width: int, height: int) -> list[Strip]:
        """As many lines as fit, the most important first."""
        lines = [self._speed(), *self._memory_lines(width), self._rate(width)]
        return [strip_of(line, width, self.rich_style) for line in lines[:height]]

    def _speed(self) -> list[Run]:
        view = self.view
        parts, whole = view.step_parts, view.step_s
        if parts is None or not whole:
            return self._line("step", ("no steps yet", self.style_of("figures--label")))
        shares = "  ".join(
            f"{name} {part / whole * 100:.0f} %"
            for name, part in zip(("data", "model", "optim."), parts, strict=True)
        )
        return self._line(
            "step", (f"{short_time(whole):<8} ", self.rich_style), (shares, self.style_of("figures--label"))
        )

    def _rate(self, width: int) -> list[Run]:
        view = self.view
        if view.last_step is None:
            return []
        room = max(4, min(40, width - LABEL - 9))
        ramp = ASCII_RAMP if self.glyphs.ascii else RAMP
        return self._line(
            "rate",
            (f"{number(view.last_step.lr, 8):<8} ", self.rich_style),
            (sparkline(view.courses.lr, room, ramp), self.style_of("figures--bar")),
        )

    def _memory_lines(self, width: int) -> list[list[Run]]:
        memory, text = self.view.memory, self.rich_style
        if memory is None:
            return []
        room = max(4, min(20, width - LABEL - 30))
        lines = []
        if memory.vram_total_gb > 0:
            vram, peak = (memory.vram_used_gb, memory.vram_total_gb), f"  peak {memory.vram_peak_gb:.1f}"
            lines.append(self._gauge("VRAM", *vram, room, "figures--bar", peak))
            if self.view.memory_held is not None:
                parts = (f"{label.strip()} {value:.1f}" for label, value in held_parts(self.view.memory_held))
                told = "  ".join(parts)
                told = told if len(told) <= width - LABEL else told.replace("  ", " ").replace("weights", "base")
                lines.append(self._line("held", (told, self.style_of("figures--label"))))
            heat = f"{memory.gpu_celsius:.0f} {self.glyphs.degree}C  {memory.gpu_watts:.0f} W"
            load = f" {memory.gpu_percent:.0f} %  {heat}"
            lines.append(self._line("GPU", *self._bar(memory.gpu_percent / 100, room, "figures--bar"), (load, text)))
        host, own = (memory.host_used_gb, memory.host_total_gb), f"  own {memory.process_gb:.1f}"
        lines.append(self._gauge("host", *host, room, "figures--second", own))
        return lines


def sparkline(values: array[float], room: int, ramp: str = RAMP) -> str:
    """``values`` as ``room`` characters of rising height, from zero to the highest; each shows its part's last."""
    count = len(values)
    picked = [values[max(0, count * (place + 1) // room - 1)] for place in range(room)] if count else []
    top = max((value for value in picked if math.isfinite(value)), default=0.0)
    if top <= 0:
        return ""
    steps = len(ramp) - 1
    return "".join(
        ramp[max(0, min(steps, math.ceil(value / top * steps)))] if math.isfinite(value) else " " for value in picked
    )
