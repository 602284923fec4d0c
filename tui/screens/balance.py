"""How often an epoch shows each folder's pictures, and repeats that would make them even: a table over the screen."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.cells import set_cell_size
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from engine.dataset.balance import Part, balance, uneven
from engine.text import safe_text
from tui.catalog_rows import Row
from tui.safe import safe
from tui.screens.dialogs import Dialog

_NAME = 24
_UNEVEN = (
    "What is shown most is learned first, and overtrained when the rest",
    "has come as far. even: repeats that show all folders about as",
    "often. Set dataset.folders.repeats, or call a folder 5_name.",
)
_CLASS = (
    "class: regularization. Its share is of all such pictures; even is",
    "as often as all of the rest together.",
)


def parts_of(rows: Sequence[Row]) -> tuple[Part, ...]:
    """The parts of a dataset, by folder; pictures that are left out, or cannot be trained on, do not count."""
    return balance(
        (os.path.dirname(row.name) or safe_text(row.path.parent.name, 120), row.own_repeats or row.repeats,
         row.regularization)
        for row in rows
        if not row.excluded and row.severity != "error"
    )  # fmt: skip


def balance_lines(parts: Sequence[Part]) -> list[str]:
    """A table of the parts, 66 cells wide at most, and what could be better."""
    if not parts:
        return ["No picture is trained on yet."]
    lines = [f"{'folder':<{_NAME}} {'pictures':>8} {'repeats':>8} {'an epoch':>9} {'share':>6} {'even':>5}"]
    for part in parts:
        kind = " (class)" if part.regularization else ""
        name = set_cell_size(safe_text(part.name, 200), _NAME - len(kind)).rstrip() + kind
        repeats = str(part.repeats) if part.repeats else "mixed"
        figures = f"{part.pictures:>8,} {repeats:>8} {part.views:>9,} {part.share:>6.0%} {part.suggested:>5}"
        lines.append(f"{set_cell_size(name, _NAME)} {figures}")
    if uneven(parts):
        lines += ["", *_UNEVEN]
    if any(part.regularization for part in parts):
        lines += ["", *_CLASS]
    return lines


class BalanceDialog(Dialog):
    """The table; esc closes it."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__()
        self._parts = parts_of(rows)

    def compose(self) -> ComposeResult:
        """Title, table, what the keys do."""
        with Vertical(classes="box -wide"):
            yield Static(safe("Balance of an epoch"), classes="title")
            with VerticalScroll(classes="detail"):
                yield Static(safe("\n".join(balance_lines(self._parts)), 20_000, newlines=True))
            yield Static(safe("arrows scroll, esc goes back"), classes="foot")

    def on_mount(self) -> None:
        """Arrows scroll at once."""
        self.query_one(VerticalScroll).focus()
