"""The blind comparison: two pictures without a name, which is better; at the end of the round, what they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from engine.text import safe_text
from tui.blind import Pairing, counted, pairings, told
from tui.epochs_shown import Shown
from tui.judged import Judged
from tui.keys.epochs import BLIND_KEYS
from tui.keys.key import bindings
from tui.screens.two_pictures import TwoPictures
from tui.workplace import Workplace

Answered = tuple[Pairing, str, Judged]
"""A pair, what was said of it, and the opinions before."""


class BlindScreen(TwoPictures):
    """Rounds of pairs.

    Args:
        epochs: what is compared.
        judge: takes the opinions after each answer, and keeps them.
        chance: draws pairs and sides.
    """

    BINDINGS = bindings(BLIND_KEYS)

    def __init__(
        self,
        workplace: Workplace,
        shown: Shown,
        epochs: Sequence[int],
        judged: Judged,
        judge: Callable[[Judged], None],
        chance: Random,
    ) -> None:
        super().__init__(workplace, shown.folder)
        self.shown = shown
        self.epochs = tuple(epochs)
        self.judged = judged
        self.answered: list[Answered] = []
        self._judge = judge
        self._chance = chance
        self.pairs = pairings(shown.grid, epochs, chance)

    def compose(self) -> ComposeResult:
        """The two pictures; in their place, at the end, what they were."""
        yield from super().compose()
        yield Static(id="result")

    def on_mount(self) -> None:
        """The first pair."""
        self._show()

    @property
    def over(self) -> bool:
        """Whether all pairs were shown."""
        return len(self.answered) >= len(self.pairs)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Answers while there is something to answer, another round when there is not."""
        if action == "answer":
            return not self.over
        if action == "again":
            return self.over
        return bool(self.answered) or action != "undo"

    def _show(self) -> None:
        self.set_class(self.over, "-over")
        self.refresh_bindings()
        if self.over:
            self.put(0, None, "")
            self.put(1, None, "")
            self.tell("The round is over", "r begins another, esc goes back")
            self.query_one("#result", Static).update(self._result())
            return
        pair = self.pairs[len(self.answered)]
        self.put(0, pair.left, "1")
        self.put(1, pair.right, "2")
        self.tell(f"Which is better?  Pair {len(self.answered) + 1} of {len(self.pairs)}", pair.left.prompt)

    def _result(self) -> Content:
        lines = [Content.styled("What you saw", "bold")]
        for pair, answer, _ in self.answered:
            names = [f"epoch {one.epoch}" if one.epoch else "the base" for one in (pair.left, pair.right)]
            if answer == "2":
                names.reverse()
            word = {"1": "beat", "2": "beat", "same": "looked like"}.get(answer, "skipped, beside")
            prompt = safe_text(pair.left.prompt, 60)
            lines.append(Content.assemble(f"  {names[0]} {word} {names[1]}", (f"  {prompt}", "$foreground-muted")))
        lines += [Content(""), Content.styled("All comparisons of this run", "bold")]
        for epoch, opinion in sorted(self.judged.epochs.items()):
            if opinion.shown:
                lines.append(Content(f"  epoch {epoch:<4} won {opinion.wins} of {opinion.shown}"))
        lines += [Content(""), Content(told(self.judged))]
        return Content("\n").join(lines)

    def action_answer(self, answer: str) -> None:
        """Count an answer, and show the next pair."""
        pair = self.pairs[len(self.answered)]
        self.answered.append((pair, answer, self.judged))
        if answer:
            self._take(counted(self.judged, pair, answer))
        self._show()

    def action_undo(self) -> None:
        """Take the last answer back."""
        _, answer, before = self.answered.pop()
        if answer:
            self._take(before)
        self._show()

    def _take(self, judged: Judged) -> None:
        self.judged = judged
        self._judge(judged)

    def action_again(self) -> None:
        """Another round."""
        self.answered.clear()
        self.pairs = pairings(self.shown.grid, self.epochs, self._chance)
        self._show()

    def action_back(self) -> None:
        """Back to the epochs."""
        self.dismiss(None)
