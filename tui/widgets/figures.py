"""Figures beside the plots: where a step's time goes, memory as bars, the last values, what was saved."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import PurePath
from typing import ClassVar

from textual.strip import Strip

from engine.text import safe_text
from tui.units import duration, number, short_time
from tui.widgets.cells import CellWidget, Run, strip_of

LABEL = 9


class Figures(CellWidget):
    """Lines of a label and a value or bar; the most important first, cut at the height there is."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"figures--label", "figures--bar", "figures--rail", "figures--second"}
    TOPICS = frozenset({"state", "step", "epoch", "memory", "saved"})

    def content_key(self) -> Hashable:
        """The values shown."""
        view = self.view
        return view.step, view.memory, len(view.checkpoints), view.state, round(view.active_s)

    def paint(self, width: int, height: int) -> list[Strip]:
        """As many lines as fit."""
        lines = [*self._step(width), *self._memory(width), *self._values()]
        return [strip_of(line, width, self.rich_style) for line in lines[:height]]

    def _line(self, label: str, *runs: Run) -> list[Run]:
        return [(f"{label:<{LABEL}}", self.style_of("figures--label")), *runs]

    def _bar(self, part: float, room: int, style: str) -> list[Run]:
        filled = max(0, min(room, round(part * room)))
        return [
            (self.glyphs.full * filled, self.style_of(style)),
            (self.glyphs.empty * (room - filled), self.style_of("figures--rail")),
        ]

    def _step(self, width: int) -> list[list[Run]]:
        view, text = self.view, self.rich_style
        parts = view.step_parts
        if parts is None or view.step_s is None:
            return [self._line("step", ("no steps yet", self.style_of("figures--label")))]
        lines = [self._line("step", (short_time(view.step_s), text))]
        rest = max(0.0, view.step_s - sum(parts))
        room = max(4, min(24, width - LABEL - 18))
        for label, value in zip((" data", " model", " optim.", " other"), (*parts, rest), strict=True):
            share = value / view.step_s if view.step_s else 0.0
            figures = f" {short_time(value):>7} {share * 100:3.0f} %"
            lines.append(self._line(label, *self._bar(share, room, "figures--bar"), (figures, text)))
        return lines

    def _memory(self, width: int) -> list[list[Run]]:
        memory, text = self.view.memory, self.rich_style
        if memory is None:
            return []
        room = max(4, min(24, width - LABEL - 18))
        lines = []
        if memory.vram_total_gb > 0:
            share = memory.vram_used_gb / memory.vram_total_gb
            used = f" {memory.vram_used_gb:.1f}/{memory.vram_total_gb:.1f} GiB"
            lines.append(self._line("VRAM", *self._bar(share, room, "figures--bar"), (used, text)))
            load = f"{memory.gpu_percent:.0f} %  {memory.gpu_celsius:.0f} {self.glyphs.degree}C"
            lines.append(self._line(" peak", (f"{memory.vram_peak_gb:.1f} GiB", text)))
            lines.append(self._line("GPU", (f"{load}  {memory.gpu_watts:.0f} W", text)))
        share = memory.host_used_gb / memory.host_total_gb if memory.host_total_gb else 0.0
        used = f" {memory.host_used_gb:.1f}/{memory.host_total_gb:.1f} GiB"
        lines.append(self._line("host", *self._bar(share, room, "figures--second"), (used, text)))
        lines.append(self._line("process", (f"{memory.process_gb:.2f} GiB", text)))
        return lines

    def _values(self) -> list[list[Run]]:
        view, text = self.view, self.rich_style
        lines = []
        if view.last_step is not None:
            lines.append(self._line("rate", (number(view.last_step.lr, 8), text)))
            lines.append(self._line("gradient", (f"norm {number(view.last_step.grad_norm, 8)}", text)))
        worked = duration(view.active_s)
        held = view.seconds.get("paused", 0.0) + view.seconds.get("released", 0.0)
        lines.append(self._line("worked", (worked + (f", paused {duration(held)}" if held >= 1 else ""), text)))
        for saved in reversed(view.checkpoints[-3:]):
            lines.append(self._line("saved", (safe_text(PurePath(saved.path).name, 60), text)))
        return lines
