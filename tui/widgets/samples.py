"""The samples pane: the newest picture as it arrives, or any earlier one; below it the same prompt over the epochs.

A flat pane shows the last pictures side by side instead. left and right walk through all samples, up and down through
the epochs of one prompt. Until a picture is decoded its place is hatched. Cells are kept, so walking back costs
nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from textual.strip import Strip

from engine.events import SampleSaved
from engine.text import safe_text
from tui.keys.key import bindings
from tui.keys.run import SAMPLE_KEYS
from tui.safe import safe
from tui.view import RunView
from tui.widgets.cells import Run, strip_of, wrap
from tui.widgets.decoded import placed
from tui.widgets.sample_pictures import (
    FILM_HEIGHT,
    PROMPT_LINES,
    THUMB_COLUMNS,
    THUMB_ROWS,
    Places,
    SamplePictures,
    film_of,
)


class SamplesPane(SamplePictures, can_focus=True):
    """Pictures drawn while training, one large with prompt and epoch, and a film of the same prompt."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"samples--label", "samples--prompt", "samples--mark", "samples--hatch"}
    BINDINGS = bindings(SAMPLE_KEYS)
    TOPICS = frozenset({"samples", "stage", "state"})

    def show(self, view: RunView) -> None:
        """Take the newest samples and have the pictures in sight decoded."""
        super().show(view)
        stage = view.stages.get(view.stage)
        drawing = stage is not None and view.state == "sampling"
        subtitle = safe_text(f"{stage.name} {stage.done}/{stage.total}", 40) if drawing and stage else ""
        if subtitle != (self.border_subtitle or ""):
            self.border_subtitle = safe(subtitle)
        self._load_missing()

    def content_key(self) -> Hashable:
        """Sample shown, samples there, pictures decoded."""
        return len(self.view.samples), self.chosen, self._loads, self.view.folder

    def action_walk(self, by: int) -> None:
        """Go ``by`` samples on, or back when negative; past the newest means following it."""
        count = len(self.view.samples)
        at = (count - 1 if self.chosen is None else self.chosen) + by
        self._choose(max(0, at) if at < count - 1 else None)

    def action_epoch(self, by: int) -> None:
        """Go to the same prompt's next or former picture."""
        current = self.current
        if current is None:
            return
        same = [at for at, sample in enumerate(self.view.samples) if sample.index == current.index]
        place = same.index(self.view.samples.index(current)) + by
        if 0 <= place < len(same):
            self._choose(same[place])

    def action_newest(self) -> None:
        """Follow the newest sample."""
        self._choose(None)

    async def action_large(self) -> None:
        """Show the pane alone, and the picture as large as it gets."""
        await self.screen.run_action("zoom")

    def _choose(self, at: int | None) -> None:
        self.chosen = at
        self._load_missing()
        self.refresh()

    def paint(self, width: int, height: int) -> list[Strip]:
        """Heading, picture, prompt, film."""
        current = self.current
        if current is None:
            hint = [("samples appear here as they are drawn".center(width), self.style_of("samples--label"))]
            return [strip_of(row, width, self.rich_style) for row in placed([hint], width, height, self.rich_style)]
        places = self._places(width, height)
        rows = [self._heading(current, width)]
        rows += self._row(places) if places.row else self._picture(current.path, width, places.rows)
        for line in self._prompt(current, width, PROMPT_LINES - bool(places.row)):
            rows.append([(line, self.style_of("samples--prompt"))])
        if places.thumbs:
            rows += self._film_rows(places.thumbs)
        return [strip_of(row, width, self.rich_style) for row in rows[:height]]

    def _prompt(self, sample: SampleSaved, width: int, lines: int) -> list[str]:
        """The prompt in exactly so many lines, cut where it is longer."""
        prompt = wrap(safe_text(sample.prompt, 600), max(8, width - 1))
        if len(prompt) > lines:
            prompt = [*prompt[: lines - 1], prompt[lines - 1][: width - 4] + self.glyphs.ellipsis]
        return prompt + [""] * (lines - len(prompt))

    def _heading(self, sample: SampleSaved, width: int) -> list[Run]:
        dot = f" {self.glyphs.dot} "
        at = self.view.samples.index(sample) + 1
        parts = [
            f"{at}/{len(self.view.samples)}",
            f"epoch {sample.epoch}",
            f"step {sample.step}",
            f"seed {sample.seed}",
        ]
        if self.chosen is not None:
            parts.append("end: newest")
        while len(dot.join(parts)) > width and len(parts) > 1:
            parts.pop()
        return [(dot.join(parts), self.style_of("samples--label"))]

    def _row(self, places: Places) -> list[list[Run]]:
        """Pictures side by side, each with its epoch below; the current one's is in brackets."""
        rows: list[list[Run]] = [[] for _ in range(places.rows + 1)]
        columns = 2 * places.rows
        for sample in self._beside(places):
            picture = [*self._picture(sample.path, columns, places.rows), [self._label(sample, columns)]]
            for line, runs in zip(rows, picture, strict=True):
                room = columns - sum(len(text) for text, _ in runs)
                line += [*runs, (" " * (room + 1), self.rich_style)]
        return rows

    def _label(self, sample: SampleSaved, columns: int) -> Run:
        here = sample == self.current
        label = f"[e{sample.epoch}]" if here else f"e{sample.epoch}"
        return label.center(columns), self.style_of("samples--mark" if here else "samples--label")

    def _film_rows(self, thumbs: int) -> list[list[Run]]:
        rows: list[list[Run]] = [[] for _ in range(FILM_HEIGHT)]
        for sample in film_of(self.view.samples, self.current, thumbs):
            for row, runs in zip(rows, self._thumb(sample), strict=True):
                row += [*runs, (" ", self.rich_style)]
        return rows

    def _thumb(self, sample: SampleSaved) -> list[list[Run]]:
        picture = self._picture(sample.path, THUMB_COLUMNS, THUMB_ROWS)
        rows = [[self._label(sample, THUMB_COLUMNS)]]
        for runs in picture:
            width = sum(len(text) for text, _ in runs)
            rows.append([*runs, (" " * (THUMB_COLUMNS - width), self.rich_style)])
        return rows
