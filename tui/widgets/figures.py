"""Figures beside the plots: where a step's time goes, memory as bars, the last values, what was saved."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import PurePath
from typing import ClassVar

from textual.strip import Strip

from engine.events import MemoryHeld
from engine.text import safe_text
from tui.units import duration, number, short_time
from tui.widgets.cells import CellWidget, Run, strip_of

LABEL = 9


def held_parts(held: MemoryHeld) -> list[tuple[str, float]]:
    """The parts of memory under the names they are shown by, GiB."""
    return [
        (" weights", held.weights_gb),
        (" LoRA", held.adapters_gb),
        (" kept", held.checkpoints_gb),
        (" work", held.working_gb),
        (" rest", held.other_gb),
    ]


class Figures(CellWidget):
    """Lines of a label and a value or bar; the most important first, cut at the height there is."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"figures--label", "figures--bar", "figures--rail", "figures--second"}
    TOPICS = frozenset({"state", "step", "epoch", "memory", "saved"})

    def content_key(self) -> Hashable:
        """The values shown."""
        view = self.view
        told = len(view.stepped_down), len(view.checkpoints), view.foreseen
        return view.step, view.memory, view.memory_held, told, view.state, round(view.active_s)

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

    def _gauge(self, label: str, used: float, total: float, room: int, style: str, more: str = "") -> list[Run]:
        """Memory as a bar and in GiB, with more words behind."""
        told = f" {used:.1f}/{total:.1f} GiB{more}"
        return self._line(label, *self._bar(used / total if total else 0.0, room, style), (told, self.rich_style))

    def _step(self, width: int) -> list[list[Run]]:
        view, text = self.view, self.rich_style
        parts = view.step_parts
        if parts is None or view.step_s is None:
            return [self._line("step", ("no steps yet", self.style_of("figures--label")))]
        lines = [self._line("step", (short_time(view.step_s), text))]
        data, model, optimizer = parts
        told = [(" data", data), (" model", model), (" optim.", optimizer), (" other", view.step_s - sum(parts))]
        halves = view.step_halves
        if halves is not None:
            told[1:2] = [(" forward", halves[0]), (" backward", halves[1])]
            told += [(" copies", halves[2])] if halves[2] else []  # part of the two: what they waited for
        room = max(4, min(24, width - LABEL - 18))
        for label, value in told:
            value = max(0.0, value)
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
            lines.append(self._gauge("VRAM", memory.vram_used_gb, memory.vram_total_gb, room, "figures--bar"))
            load = f"{memory.gpu_percent:.0f} %  {memory.gpu_celsius:.0f} {self.glyphs.degree}C"
            lines.append(self._line(" peak", (f"{memory.vram_peak_gb:.1f} GiB", text)))
            lines += self._probe()
            lines.append(self._line("GPU", (f"{load}  {memory.gpu_watts:.0f} W", text)))
        lines.append(self._gauge("host", memory.host_used_gb, memory.host_total_gb, room, "figures--second"))
        lines.append(self._line("process", (f"{memory.process_gb:.2f} GiB", text)))
        return lines + self._lowered() + self._held(room)

    def _lowered(self) -> list[list[Run]]:
        """What was changed because memory ran out, and from which step on."""
        last = {down.setting: down for down in self.view.stepped_down if down.stage != "sampling" and down.after}
        text = self.rich_style
        return [
            self._line("lowered", (safe_text(f"{down.setting} {down.after}, step {down.step}", 80), text))
            for down in last.values()
        ]

    def _probe(self) -> list[list[Run]]:
        """The peak that a probe found before the run, beside its forecast."""
        probed, foreseen = self.view.probed, self.view.foreseen
        if probed is None or foreseen is None or not foreseen.peak_gb:
            return []
        words = f"{probed.peak_gb:.1f} GiB, forecast {foreseen.peak_gb:.1f}"
        return [self._line(" probe", (words, self.rich_style))]

    def _held(self, room: int) -> list[list[Run]]:
        """What the run's own memory holds, each part as a share of its peak."""
        held = self.view.memory_held
        if held is None or not held.peak_gb:
            return []
        return [
            self._line(
                label,
                *self._bar(value / held.peak_gb, room, "figures--second"),
                (f" {value:.2f} GiB", self.rich_style),
            )
            for label, value in held_parts(held)
        ]

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
