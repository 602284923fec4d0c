"""How the review of captions by machine looks: picture, caption and the machine's text against it, part by part.

What is decided, and how it is written, is :mod:`tui.screens.review`'s, which builds on this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import Static

from engine.captioners.word_diff import Piece
from engine.text import safe_text
from tui.review import Item, Queue
from tui.safe import safe
from tui.widgets.cells import glyphs_of
from tui.widgets.keyline import KeyLine
from tui.widgets.notice import Notice
from tui.widgets.preview import Preview
from tui.workplace import Workplace

if TYPE_CHECKING:
    from tui.app import KilnApp
    from tui.catalog import Row

BESIDE = 96
"""Columns from which on the picture is beside the texts."""

MOST_SHOWN = 20_000
"""Characters of one part that are drawn."""

NEED_ONE = frozenset({"keep", "whole", "refuse", "choose", "part", "none", "step", "edge", "kind"})


class ReviewView(Screen[str | None]):
    """One picture of the queue at a time, and the cursor over pictures and parts.

    Args:
        place: whose captions they are.
        rows: whose machine captions are looked at.
        word: "marked", "found" or "all": how the rows were chosen.
    """

    app: KilnApp
    CSS_PATH = "machine.tcss"

    def __init__(self, place: Workplace, rows: Sequence[Row], word: str = "all") -> None:
        super().__init__()
        self._place, self._rows, self._word = place, rows, word
        self.queue: Queue | None = None
        self._part = 0
        self._taken = self._refused = self._damaged = 0
        self._lock = asyncio.Lock()

    def compose(self) -> ComposeResult:
        """Head, picture, texts, keys."""
        yield Static(id="head")
        with Horizontal(id="both"):
            yield Preview(self._place.thumbnails, id="review-picture")
            with VerticalScroll(id="texts", can_focus=False):
                yield Static(id="facts", classes="name")
                yield Static(id="diff")
                yield Static(safe("Becomes"), id="becomes-name", classes="name")
                yield Static(id="becomes")
        yield Notice()
        yield KeyLine()

    def on_resize(self, event: Resize) -> None:
        """A narrow terminal has the picture above the texts."""
        self.set_class(event.size.width < BESIDE, "-narrow")

    @property
    def item(self) -> Item | None:
        """The picture that is shown."""
        return self.queue.item if self.queue is not None else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Without a picture there is nothing to decide."""
        return self.item is not None or action not in NEED_ONE

    def show(self) -> None:
        """Draw the picture at the cursor, and what is said of it."""
        queue, item = self.queue, self.item
        self.set_class(item is None, "-over")
        self.refresh_bindings()
        if queue is None:
            return
        decided = self.decided()
        if item is None:
            self.query_one("#head", Static).update(safe("Nothing waits for a decision"))
            self.query_one("#review-picture", Preview).show_picture(None)
            told = decided or "A in the dataset pane has captions made by a model."
            facts, diff, becomes = safe(told), safe(""), safe("")
        else:
            count = f"{queue.at + 1:,}/{len(queue.items):,}"
            words = "  ".join(part for part in (f"Review {count} of {self._word}", item.row.name, decided) if part)
            self.query_one("#head", Static).update(safe(words, 300))
            self.query_one("#review-picture", Preview).show_picture(item.row.path, item.row.picture_mark)
            facts = safe(f"{item.draft.model}: {item.draft.prompt}", 300)
            diff, becomes = self._diff(item), _plain(item.text)
        self.query_one("#facts", Static).update(Content.assemble(facts))
        self.query_one("#diff", Static).update(Content.assemble(diff))
        self.query_one("#becomes", Static).update(Content.assemble(becomes))
        self.query_one("#becomes-name").display = item is not None
        self.query_one("#texts").scroll_home(animate=False)

    def _diff(self, item: Item) -> Content:
        """The caption with the machine's parts in it; signs tell what colours tell."""
        choices = item.choices
        self._part = max(0, min(self._part, len(choices) - 1))
        here = choices[self._part] if choices else -1
        if not (item.caption or "").strip():
            return Content.assemble(("No caption yet. The machine's: ", "$foreground-muted"), _plain(item.draft.text))
        parts: list[Content | tuple[str, str]] = []
        for at, piece in enumerate(item.pieces):
            if not piece.differs:
                parts.append(_plain(piece.before))
                continue
            parts += self._choice(piece, at in item.chosen, at == here)
        return Content.assemble(*parts)

    def _choice(self, piece: Piece, taken: bool, here: bool) -> list[tuple[str, str]]:
        """A part that differs: which side is taken, both sides, and the space around them."""
        arrow, back = glyphs_of(self.app).arrow, " on $primary-muted" if here else ""
        old, new = (safe_text(text.strip(), MOST_SHOWN, newlines=True) for text in (piece.before, piece.after))
        between = f" {arrow} " if old and new else f"{arrow} " if new else f" {arrow}"
        sides = piece.before, piece.after
        return [
            (" " if any(side[:1].isspace() for side in sides) else "", ""),
            ("[+ " if taken else "[- ", f"bold $text-accent{back}"),
            (old, f"{'strike $text-error' if taken else 'bold'}{back}"),
            (between, f"$text-accent{back}"),
            (new, f"{'bold $text-success' if taken else 'strike $foreground-muted'}{back}"),
            ("]", f"bold $text-accent{back}"),
            (" " if any(side[-1:].isspace() for side in sides) else "", ""),
        ]

    def decided(self) -> str:
        """How many were taken and refused, in words; empty before the first."""
        parts = [f"{self._taken:,} taken"] if self._taken else []
        parts += [f"{self._refused:,} refused"] if self._refused else []
        return ", ".join(parts)

    def action_step(self, by: int) -> None:
        """Another picture; this one stays undecided."""
        if self.queue is not None:
            self.queue.step(by)
            self._part = 0
            self.show()

    def action_edge(self, end: int) -> None:
        """The first picture, or the last."""
        self.action_step(-(10**9) if end == 0 else 10**9)

    def action_part(self, by: int) -> None:
        """Another part that differs, round the end."""
        if (item := self.item) is not None and (count := len(item.choices)):
            self._part = (self._part + by) % count
            self.show()

    def action_choose(self) -> None:
        """Choose the part, or leave it out."""
        if (item := self.item) is not None and (choices := item.choices):
            item.chosen ^= {choices[min(self._part, len(choices) - 1)]}
            self.show()

    def action_none(self) -> None:
        """Choose no part; where none is chosen, all."""
        if (item := self.item) is not None:
            item.chosen = set() if item.chosen else set(item.choices)
            self.show()


def _plain(text: str) -> Content:
    return Content(safe_text(text, MOST_SHOWN, newlines=True))
