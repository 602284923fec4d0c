"""Which epochs to average, asked."""

from __future__ import annotations

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input, Static

from engine.errors import RunError
from tui.keys.dialogs import DIALOG_KEYS
from tui.keys.key import bindings
from tui.run_loras import spans_of, spelled
from tui.safe import safe
from tui.screens.dialogs import Dialog
from tui.widgets.fields import Entry


class BlendDialog(Dialog):
    """Asks for epochs such as ``20-27`` or ``5,8,20-27``; returns them as typed.

    Args:
        epochs: what the field holds at first.
        saved: epochs of which a file stands, in order.
    """

    BINDINGS = bindings(DIALOG_KEYS)

    def __init__(self, epochs: str, saved: Sequence[int]) -> None:
        super().__init__()
        self._epochs, self._saved = epochs, saved

    def compose(self) -> ComposeResult:
        """What a blend is, the field, what will be averaged, what the keys do."""
        with Vertical(classes="box -wide"):
            yield Static("Blend epochs", classes="title")
            yield Static(safe("Averages the files of neighbouring epochs: often as strong as one, and steadier."))
            yield Entry(self._epochs, "epochs", "20-27 or 5,8,20-27")
            yield Static(id="told", classes="detail")
            yield Static("enter blends into a new file, esc goes back", classes="foot")

    def on_mount(self) -> None:
        """Say at once what would be averaged."""
        self.query_one("#field-epochs").focus()
        self._tell()

    @on(Input.Changed)
    def _tell(self) -> None:
        try:
            words = f"Averages {spelled([(epoch, epoch) for epoch in self._chosen()])}"
        except RunError as err:
            words = f"! {err.detail}"
        self.query_one("#told", Static).update(safe(words, 400))

    def _chosen(self) -> list[int]:
        spans = spans_of(self.query_one("#field-epochs", Input).value)
        chosen = [epoch for epoch in self._saved if any(first <= epoch <= last for first, last in spans)]
        if len(chosen) < 2:
            there = spelled([(epoch, epoch) for epoch in self._saved[:40]]) or "none"
            raise RunError("Too few files", f"two files are needed; there are files of: {there}", "")
        return chosen

    @on(Input.Submitted)
    def _submitted(self) -> None:
        try:
            self._chosen()
        except RunError:
            return  # the line above says why
        self.dismiss(self.query_one("#field-epochs", Input).value)
