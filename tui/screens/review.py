"""The review of captions by machine: what is decided of each picture, written and taken back."""

from __future__ import annotations

from collections.abc import Callable

from textual import work
from textual.widgets import Static

from engine.dataset.applying import Outcome
from engine.errors import EngineError
from engine.text import safe_text
from tui.aside import aside
from tui.keys.key import bindings
from tui.keys.machine import REVIEW_KEYS
from tui.review import Item, Queue, waiting
from tui.safe import safe
from tui.screens.dialogs import Choice, ChoiceDialog
from tui.screens.review_view import ReviewView

LETTERS = {"fresh": "n", "adding": "w", "all": "a", "refuse": "x", "model": "m", "refuse_model": "r"}


class ReviewScreen(ReviewView):
    """The queue, one picture at a time. Returns what was decided, in words."""

    BINDINGS = bindings(REVIEW_KEYS)

    def on_mount(self) -> None:
        """Read the drafts; the screen stands meanwhile."""
        self.query_one("#head", Static).update(safe("Looking for captions by machine..."))
        self._load()

    @work(group="load")
    async def _load(self) -> None:
        items, self._damaged = await aside(self, None, waiting, self._rows)
        self.queue = Queue(items, self._place.batches.journal)
        if self._damaged:
            self.app.say(f"{self._damaged} of the machine's captions are damaged; they can be made anew", 6.0)
        self.show()

    def action_keep(self) -> None:
        """Write what is chosen; nothing chosen is nothing to write."""
        if (item := self.item) is not None and not item.chosen:
            self.app.say("No part is chosen: space chooses this one, x refuses them all")
        else:
            self._decide(lambda queue, item: queue.take([item], whole=False))

    def action_whole(self) -> None:
        """Write the machine's text as it is."""
        self._decide(lambda queue, item: queue.take([item], whole=True))

    def action_refuse(self) -> None:
        """Leave the caption as it is."""
        self._decide(lambda queue, item: queue.refuse([item]))

    def action_kind(self) -> None:
        """Ask which are to be decided at once."""
        if self.queue is None:
            return
        kinds = self.queue.kinds()
        choices = [
            Choice(name, LETTERS[name], f"{safe_text(words, 80)} ({len(items):,})")
            for name, (words, items) in kinds.items()
        ]

        def chosen(name: str | None) -> None:
            if name in kinds:
                items = kinds[name][1]
                if name.startswith("refuse"):
                    self._decide(lambda queue, _: queue.refuse(items))
                else:
                    self._decide(lambda queue, _: queue.take(items, whole=False))

        detail = "Parts that you left out stay out. u takes all of it back at once."
        self.app.push_screen(ChoiceDialog("Decide at once", detail, choices), chosen)

    def action_undo(self) -> None:
        """Take the last decision back."""
        self._decide(lambda queue, _: queue.undo(), back=True)

    @work(group="decide")
    async def _decide(self, work: Callable[[Queue, Item], Outcome | None], back: bool = False) -> None:
        """Do ``work`` aside, one after the other: keys that come meanwhile are for the picture that is next then."""
        async with self._lock:
            queue = self.queue
            if queue is None or (queue.item is None and not back):
                return
            before = len(queue.items)
            try:
                outcome = await aside(self, None, work, queue, queue.item)
            except EngineError as err:
                self.app.show_error(err)
                return
            count = before - len(queue.items)
            if back and not count:
                self.app.say("Nothing was decided here yet")
            self._count(count, outcome, back)
            self._part = 0
            self.show()

    def _count(self, count: int, outcome: Outcome | None, back: bool) -> None:
        """Have the catalog take up what was written, and count what was decided."""
        written = outcome is not None and (bool(outcome.what) or bool(outcome.done))
        if outcome is not None and outcome.done:
            self._place.batches.take(outcome, back)
        if outcome is not None and outcome.refused:
            path, err = outcome.refused[0]
            more = f" and {len(outcome.refused) - 1:,} more" if len(outcome.refused) > 1 else ""
            self.app.say(f"{safe_text(path.name, 80)}{more} left as they were: {err.title}", 8.0)
        if written:
            self._taken = max(0, self._taken + count)
        else:
            self._refused = max(0, self._refused + count)

    def action_back(self) -> None:
        """Back to the dataset."""
        decided = self.decided()
        self.dismiss(f"{decided}; ctrl+z undoes captions" if self._taken else decided)
