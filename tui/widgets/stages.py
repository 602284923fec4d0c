"""What happens before the first step (scan, caches, loading), stage by stage, and the result after the last."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import ClassVar

from textual.geometry import Size
from textual.strip import Strip

from engine.text import safe_text
from tui.units import duration
from tui.view import RunView, Stage
from tui.widgets.cells import CellWidget, Run, strip_of, wrap

NAME = 22
COUNT = 14
DETAIL = 12
"""Cells below which a detail is left out: a few letters of it would say nothing."""


class Stages(CellWidget):
    """One line a stage: sign, name, bar, count and what it is at."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"stages--name", "stages--bar", "stages--rail", "stages--detail"}
    TOPICS = frozenset({"stage", "state"})

    def content_key(self) -> Hashable:
        """The stages as told."""
        return self.view.state, self.view.state_reason, tuple(self.view.stages.values())

    def paint(self, width: int, height: int) -> list[Strip]:
        """Heading and stages, a little below the top."""
        blank = self.rich_style
        lines: list[list[Run]] = [[], [("  Getting ready", self.style_of("stages--name"))], []]
        lines += [self._stage(stage, width) for stage in list(self.view.stages.values())[-(height - 4) :]]
        if not self.view.stages:
            reason = self.view.state_reason or "starting the engine"
            lines.append([("  " + safe_text(reason, 200), self.style_of("stages--detail"))])
        return [strip_of(line, width, blank) for line in lines[:height]]

    def _stage(self, stage: Stage, width: int) -> list[Run]:
        glyphs = self.glyphs
        sign = glyphs.done if stage.complete else glyphs.running if stage.name == self.view.stage else glyphs.waiting
        room, left = shared(width)
        part = min(1.0, stage.done / stage.total) if stage.total else 0.0
        filled = round(part * room)
        count = f" {stage.done}/{stage.total}"
        return [
            (f"  {sign} ", self.style_of("stages--bar")),
            (f"{safe_text(stage.name, NAME - 1):<{NAME}}", self.style_of("stages--name")),
            (glyphs.bar * filled, self.style_of("stages--bar")),
            (glyphs.rail * (room - filled), self.style_of("stages--rail")),
            (f"{count:<{COUNT}}", self.rich_style),
            (safe_text(stage.detail, 60) if left else "", self.style_of("stages--detail")),
        ]


def shared(width: int) -> tuple[int, int]:
    """Cells for a stage's bar, and for its detail: none, or enough to be read."""
    free = width - 4 - NAME - COUNT
    room = max(6, min(30, free - 2 * DETAIL if free >= 3 * DETAIL else free))
    return room, free - room if free - room >= DETAIL else 0


class Result(CellWidget):
    """The outcome of a run in a few lines: where the LoRA is, how the loss went, what it took; or what failed."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"result--good", "result--bad", "result--label"}
    TOPICS = frozenset({"state", "saved"})
    _lines = 0

    def content_key(self) -> Hashable:
        """End and failure."""
        return self.view.done, self.view.failure, self.view.state

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """One line for each part of the outcome, more for a long path."""
        return max(1, len(self._rows(width)))

    def show(self, view: RunView) -> None:
        """Take the outcome, which needs more lines than a live run."""
        super().show(view)
        lines = len(result_lines(view))
        if lines != self._lines:
            self._lines = lines
            self.refresh(layout=True)

    def paint(self, width: int, height: int) -> list[Strip]:
        """Heading, then label and value pairs."""
        return [strip_of(row, width, self.rich_style) for row in self._rows(width)[:height]]

    def _rows(self, width: int) -> list[list[Run]]:
        failed = self.view.failure is not None
        heading = self.style_of("result--bad" if failed or self.view.done is None else "result--good")
        sign = self.glyphs.states.get("failed" if failed else self.view.state, self.glyphs.warning)
        rows: list[list[Run]] = []
        for number, (label, text) in enumerate(result_lines(self.view, self.glyphs.arrow)):
            if number == 0:
                pieces = wrap(text, max(8, width - 4))
                rows += [[(f" {' ' if part else sign} {piece}", heading)] for part, piece in enumerate(pieces)]
                continue
            for part, piece in enumerate(wrap(text, max(8, width - 10))):
                lead = f"   {'' if part else label:<7}"
                rows.append([(lead, self.style_of("result--label")), (piece, self.rich_style)])
        return rows


def result_lines(view: RunView, arrow: str = "->") -> list[tuple[str, str]]:
    """The outcome as (label, text) pairs, the heading first; texts are safe to show. Empty while a run is live."""
    if view.failure is not None:
        lines = [("", safe_text(view.failure.title, 200)), ("", safe_text(view.failure.detail, 400))]
        return [*lines, ("try", safe_text(view.failure.hint, 400))] if view.failure.hint else lines
    done = view.done
    if done is None:
        where = f"Interrupted at step {view.step}: enter goes on from what was saved last"
        return [("", where)] if view.state == "interrupted" else []
    ending = "Finished" if done.reason == "finished" else "Stopped and saved (enter goes on)"
    lines = [
        ("", f"{ending}: epoch {done.epoch}, step {done.step}, {duration(done.elapsed_s)}"),
        ("LoRA", safe_text(_near(done.lora) if done.lora else "none written", 400)),
    ]
    change = view.loss_change
    if change is not None:
        lines.append(("loss", f"{change[0]:.4f} {arrow} {change[1]:.4f} (first and last epoch)"))
    lines.append(
        ("also", f"{len(view.epoch_marks)} epochs, {len(view.checkpoints)} files, {len(view.samples)} samples")
    )
    return lines


def _near(path: str) -> str:
    """``path`` as seen from the work folder if it lies in there: shorter to read."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
