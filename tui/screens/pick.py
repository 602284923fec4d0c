"""A dialog that offers a list to choose one from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine.text import safe_text
from tui.safe import safe
from tui.screens.dialogs import Dialog
from tui.widgets.marked_list import MarkedList


@dataclass(frozen=True)
class Offer:
    """One line of the list: what is returned, what is shown, and a remark under it."""

    value: str
    text: str
    remark: str = ""


class PickDialog(Dialog):
    """Arrows and enter, or a click; esc chooses nothing. Returns the offer's value."""

    def __init__(self, title: str, offers: Sequence[Offer], current: str = "", foot: str = "") -> None:
        super().__init__()
        self._title = title
        self._offers = tuple(offers)
        self._current = current
        self._foot = foot or "enter to choose, esc to go back"

    def compose(self) -> ComposeResult:
        """Title, list, what the keys do."""
        with Vertical(classes="box -wide"):
            yield Static(safe(self._title), classes="title")
            yield MarkedList(*(Option(_line(offer)) for offer in self._offers), markup=False)
            yield Static(safe(self._foot), classes="foot")

    def on_mount(self) -> None:
        """Begin at the value that stands."""
        options = self.query_one(OptionList)
        options.focus()
        values = [offer.value for offer in self._offers]
        options.highlighted = values.index(self._current) if self._current in values else 0

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Enter or click takes the line."""
        self.dismiss(self._offers[event.option_index].value)


def _line(offer: Offer) -> Content:
    if not offer.remark:
        return safe(offer.text, 400)
    # No colour of its own: it would have to be read on the chosen line's ground too.
    return Content.assemble((safe_text(offer.text, 400), "bold"), "\n  ", safe_text(offer.remark, 400))
