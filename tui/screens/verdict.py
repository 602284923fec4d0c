"""The form about an epoch: three questions, each answered by one letter."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from tui.judged import QUESTIONS, Opinion
from tui.keys.dialogs import DIALOG_KEYS
from tui.keys.epochs import VERDICT_KEYS
from tui.keys.key import bindings
from tui.safe import safe
from tui.screens.dialogs import Dialog


class VerdictDialog(Dialog):
    """y, p or n answer the question that the sign stands at; returns the answers with commas between."""

    BINDINGS = bindings(DIALOG_KEYS + VERDICT_KEYS)

    def __init__(self, epoch: int, opinion: Opinion) -> None:
        super().__init__()
        self._epoch = epoch
        self._answers = {name: str(getattr(opinion, name)) for name in QUESTIONS}
        self._at = 0

    def compose(self) -> ComposeResult:
        """Title, questions, what the keys do."""
        with Vertical(classes="box"):
            yield Static(
                safe(f"Verdict on epoch {self._epoch}" if self._epoch else "Verdict on the base"), classes="title"
            )
            yield Static(self._lines(), id="questions", classes="detail")
            yield Static(
                safe("y yes, p partly, n no; up and down; enter keeps, esc leaves it as it was"), classes="foot"
            )

    def _lines(self) -> Content:
        lines = []
        for number, (name, question) in enumerate(QUESTIONS.items()):
            here = number == self._at
            answer = self._answers[name] or "-"
            lines.append(Content.assemble(f"{'>' if here else ' '} {question:<38} ", (answer, "bold $text-accent")))
        return Content("\n").join(lines)

    def _show(self) -> None:
        self.query_one("#questions", Static).update(self._lines())

    def action_say(self, answer: str) -> None:
        """Answer, and go on to the next question."""
        self._answers[list(QUESTIONS)[self._at]] = answer
        self.action_move(1 if answer and self._at < len(QUESTIONS) - 1 else 0)

    def action_move(self, by: int) -> None:
        """Another question."""
        self._at = (self._at + by) % len(QUESTIONS)
        self._show()

    def action_keep(self) -> None:
        """Return the answers."""
        self.dismiss(",".join(self._answers[name] for name in QUESTIONS))
