"""Many captions at once, from the dataset pane: the ways to the form and to words and tags, undo and redo.

Which pictures a command is about is the listing's to say: those marked, else those found, else all.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import TYPE_CHECKING

from textual import work

from engine.dataset.batch_edits import Operation
from engine.errors import EngineError
from engine.text import safe_text
from tui.aside import aside
from tui.screens.editing import EditingScreen

if TYPE_CHECKING:
    from engine.config import CaptionConfig
    from engine.dataset.applying import Outcome
    from tui.catalog import Row
    from tui.screens.words import Wish
    from tui.widgets.dataset_batches import UndoWanted

PROGRESS_S = 10.0
"""A word of how far it is stays so long, if no other follows."""


class Batching(EditingScreen):
    """A screen with a dataset pane whose captions can be changed together."""

    _undoing: threading.Event | None = None
    """Set to stop what is being taken back or done again; None while nothing is."""

    def on_replace_wanted(self) -> None:
        """Open the form."""
        self._open_form(Operation())

    def _open_form(self, wanted: Operation) -> None:
        from tui.screens.replace import ReplaceScreen

        captions = self._captions
        begin = Operation(
            wanted.kind, wanted.find, wanted.text, wanted.regex, wanted.where, wanted.case,
            captions.separator if captions else ",",
            captions.trigger_word.strip() if captions else "",
            captions.keep_tokens if captions else 0,
        )  # fmt: skip
        self.workplace.desk.save_all()  # what is typed and not saved yet is a part of what is changed
        scopes, scope = self._scopes()
        self.app.push_screen(ReplaceScreen(self.workplace.batches, scopes, scope, begin), self._replaced)

    @property
    def _captions(self) -> CaptionConfig | None:
        dataset = self.workplace.catalog.dataset
        return dataset.captions if dataset is not None else None

    def _scopes(self) -> tuple[dict[str, list[Row]], str]:
        """Rows by the word for them, and the word to begin with."""
        listing = self._dataset.listing
        rows, scope = listing.scope()
        everything = list(self.workplace.catalog.rows)
        scopes = {"all": everything}
        if len(listing.rows) < len(everything):
            scopes = {"found": list(listing.rows)} | scopes
        return {scope: rows} | {word: found for word, found in scopes.items() if word != scope}, scope

    def _replaced(self, outcome: Outcome | None) -> None:
        if outcome is not None:
            self._take_outcome(outcome, "Changed", back=False)

    def on_words_wanted(self) -> None:
        """Count words and tags."""
        from tui.batch import texts_of
        from tui.screens.words import WordsScreen

        rows, scope = self._dataset.listing.scope()
        texts: dict[Hashable, str] = {path: row.caption or "" for path, row in texts_of(rows).items()}
        captions = self._captions
        separator, trigger = (captions.separator, captions.trigger_word) if captions else (",", "")
        self.app.push_screen(WordsScreen(texts, scope, separator, trigger.strip()), self._wished)

    def _wished(self, wish: Wish | None) -> None:
        if wish is not None and wish.operation is not None:
            self._open_form(wish.operation)
        elif wish is not None:
            self._dataset.find(wish.filter)

    @work(group="undo")  # none takes the place of another: each has its rows to take up
    async def on_undo_wanted(self, event: UndoWanted) -> None:
        """Take the last change of many captions back, or do it again."""
        back = event.back
        self.workplace.desk.save_all()
        stop = self._undoing = threading.Event()
        self._dataset.busy = True

        def told(count: int, total: int) -> None:
            self.app.call_later(self._progress, stop, back, count, total)

        try:
            outcome = await aside(self, None, self.workplace.batches.move, back, told, stop.is_set)
        except EngineError as err:
            self.app.show_error(err)
            return
        finally:
            if self._undoing is stop:
                self._undoing = None
                self._dataset.busy = False
        if outcome is None and back:
            self.app.action_name_detach()  # as this key does wherever nothing can be undone
        elif outcome is None:
            self.app.say("Nothing to do again")
        elif outcome.elsewhere:
            what = safe_text(outcome.what, 60)
            self.app.say(f"{what} was done in another dataset: open it to take it back", 6.0)
        else:
            self._take_outcome(outcome, f"{'Undone' if back else 'Done again'}: {outcome.what} in", back)

    def _progress(self, stop: threading.Event, back: bool, count: int, total: int) -> None:
        if self._undoing is stop and self.is_attached:  # the last word may come when all is done
            did = "taken back" if back else "done again"
            self.app.say(f"{count:,} of {total:,} captions {did}; esc stops", PROGRESS_S)

    def action_back(self) -> None:
        """Stop what is being taken back; else out of the zoom."""
        if self._undoing is not None:
            self._undoing.set()
        else:
            super().action_back()

    def _take_outcome(self, outcome: Outcome, did: str, back: bool) -> None:
        from tui.batch import refusal, told

        changed = self.workplace.batches.take(outcome, back)
        self.count_edits(changed)
        self._dataset.poll()
        caption = self._caption
        if caption.row in changed:
            caption.desk.tend(caption.sheet)  # the text beside the table follows at once
        undo = "" if back or not outcome.done else "; ^z in the dataset takes it back"
        self.app.say(safe_text(told(outcome, did) + undo, 200), 6.0)
        if (error := refusal(outcome)) is not None:
            self.app.show_error(error)
