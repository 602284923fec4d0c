"""What would be trained, while nothing is; or what to do where there is nothing to train yet."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, ClassVar

from textual.strip import Strip

from engine.text import safe_text
from tui.plan import plan_lines
from tui.widgets.cells import CellWidget, Run, strip_of, wrap

if TYPE_CHECKING:
    from textual.widget import Widget

    from tui.workplace import Workplace

LABEL = 10

NOTHING = [
    ("w", "step by step to a run that fits this machine"),
    ("ctrl+n", "set up a run on one screen: model files, pictures, settings"),
    ("r", "look at earlier runs"),
    ("?", "all keys, and what to do about trouble"),
]
READY = [
    ("enter", "start it"),
    ("w", "see whether it fits this machine, step by step"),
    ("ctrl+n", "change its settings"),
    ("r", "look at earlier runs"),
]


class Plan(CellWidget):
    """Heading, then label and text pairs, wrapped."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"plan--heading", "plan--label", "plan--key"}

    def __init__(self) -> None:
        super().__init__()
        self._heading = ""
        self._lines: tuple[tuple[str, str], ...] = ()
        self._foot: tuple[tuple[str, str], ...] = ()

    def tell(self, heading: str, lines: list[tuple[str, str]], foot: list[tuple[str, str]]) -> None:
        """Show another plan; ``foot`` are keys and what they do. All texts are safe to show."""
        told = (heading, tuple(lines), tuple(foot))
        if told != self.content_key():
            self._heading, self._lines, self._foot = told
            self.refresh()

    def content_key(self) -> Hashable:
        """All of it."""
        return self._heading, self._lines, self._foot

    def paint(self, width: int, height: int) -> list[Strip]:
        """Heading, lines, and at the end the keys."""
        rows: list[list[Run]] = [[], [(self._heading, self.style_of("plan--heading"))], []]
        for label, text in self._lines:
            rows += self._pair(label, text, "plan--label", width)
        rows.append([])
        for label, text in self._foot:
            rows += self._pair(label, text, "plan--key", width)
        if len(rows) > height:
            rows = [row for row in rows if row]
        return [strip_of(row, width, self.rich_style) for row in rows[:height]]

    def _pair(self, label: str, text: str, style: str, width: int) -> list[list[Run]]:
        return [
            [(f"{'' if number else label:<{LABEL}}", self.style_of(style)), (piece, self.rich_style)]
            for number, piece in enumerate(wrap(text, max(8, width - LABEL)))
        ]


def show_plan(parent: Widget, place: Workplace) -> None:
    """Tell the plan in ``parent`` what ``place`` holds."""
    plan = parent.query_one(Plan)
    if place.config is None:
        empty = [("open", "no configuration in this folder yet"), ("folder", safe_text(place.folder, 300))]
        plan.tell("Nothing to train yet", empty, NOTHING)
    else:
        plan.tell(f"Ready: {safe_text(place.config.name, 80)}", plan_lines(place.config, place.catalog.rows), READY)
