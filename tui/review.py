"""The machine's captions that wait for a decision: one at a time or many, into the captions or aside, with undo.

Comes in: rows of the catalog and the drafts beside their pictures. Goes out: captions written as steps of the
journal, and verdicts in the drafts. Without any drawing; what waits for the disk says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from engine.captioners.drafts import IN_PART, REFUSED, TAKEN, Draft, drafts_of, save_draft
from engine.captioners.word_diff import Piece, choices_in, merged, pieces_of
from engine.dataset.applying import Outcome, Wanted, apply, undo
from engine.dataset.journal import Journal
from engine.errors import DatasetError, EngineError
from tui.catalog import Row
from tui.places import is_shipped


@dataclass(eq=False)
class Item:
    """One picture and what a machine says of it."""

    row: Row
    draft: Draft
    pieces: tuple[Piece, ...] = ()
    """The caption against it; compared anew when the caption has changed since."""
    chosen: set[int] = field(default_factory=set)
    """Places of the pieces of which the machine's side is wanted."""
    caption: str | None = None
    """What ``pieces`` are of."""

    def compare(self) -> None:
        """Compare with the caption as it is now; everything is chosen at first."""
        if not self.pieces or self.caption != self.row.caption:
            self.caption = self.row.caption
            self.pieces = pieces_of(self.caption or "", self.draft.text)
            self.chosen = set(self.choices)

    @property
    def choices(self) -> list[int]:
        """Places of the pieces that differ."""
        return choices_in(self.pieces)

    @property
    def text(self) -> str:
        """The caption that the choice makes."""
        return merged(self.pieces, self.chosen)

    @property
    def whole(self) -> bool:
        """Whether all of the machine's is chosen."""
        return self.chosen == set(self.choices)


@dataclass(frozen=True)
class Decision:
    """What was decided last, to be taken back: the items, where they stood, and the step in the journal."""

    items: tuple[Item, ...]
    at: int
    step: int = 0


class Queue:
    """The items that wait, and a cursor.

    Args:
        items: see :func:`waiting`.
        journal: of the work folder.
    """

    def __init__(self, items: Sequence[Item], journal: Journal) -> None:
        self.items = list(items)
        self.at = 0
        self._journal = journal
        self._decided: list[Decision] = []

    @property
    def item(self) -> Item | None:
        """The one at the cursor, compared; None when nothing waits."""
        if not self.items:
            return None
        item = self.items[self.at]
        item.compare()
        return item

    def step(self, by: int) -> None:
        """Go on, or back; not round the ends."""
        self.at = max(0, min(self.at + by, len(self.items) - 1))

    def kinds(self) -> dict[str, tuple[str, list[Item]]]:
        """What can be decided at once: by id, in words, and which items."""
        for item in self.items:
            item.compare()
        fresh = [item for item in self.items if not item.row.caption]
        adding = [item for item in self.items if item.row.caption and _only_adds(item)]
        found = {
            "fresh": ("Take all for pictures without a caption", fresh),
            "adding": ("Take all that only add words", adding),
            "all": ("Take all", self.items),
            "refuse": ("Refuse all", self.items),
        }
        current = self.item
        if current is not None and len({item.draft.model for item in self.items}) > 1:
            same = [item for item in self.items if item.draft.model == current.draft.model]
            found["model"] = (f"Take all by {current.draft.model}", same)
            found["refuse_model"] = (f"Refuse all by {current.draft.model}", same)
        return {name: (words, list(items)) for name, (words, items) in found.items() if items}

    def take(self, items: Sequence[Item], whole: bool) -> Outcome:
        """Write the captions of ``items`` as one step, whole or as chosen. Waits for the disk.

        Those that could not be written stay in the queue. Of several texts for one caption the first is taken, the
        others stay.

        Raises:
            DiskError: the journal cannot be written; nothing was.
        """
        first: dict[object, Item] = {}
        for item in items:
            item.compare()
            first.setdefault(item.row.caption_path, item)
        texts = {item: item.draft.text if whole else item.text for item in first.values()}
        what = f"{len(texts)} captions by machine" if len(texts) > 1 else "a caption by machine"
        wanted = [Wanted(item.row.caption_path, item.row.caption, text) for item, text in texts.items()]
        outcome = apply(what, wanted, self._journal)
        refused = {path for path, _ in outcome.refused}
        done = [item for item in texts if item.row.caption_path not in refused] if not outcome.stopped else [
            item for item in texts if item.row.caption_path in {change.path for change in outcome.done}
        ]  # fmt: skip
        newest = self._journal.undoable() if outcome.done else None
        self._decide(done, newest.number if newest is not None else 0)
        for item in done:
            _mark(item, TAKEN if whole or item.whole else IN_PART)
        return outcome

    def refuse(self, items: Sequence[Item]) -> None:
        """Put ``items`` aside; their captions stay as they are. Waits for the disk."""
        self._decide(list(items), 0)
        for item in items:
            _mark(item, REFUSED)

    def undo(self) -> Outcome | None:
        """Take the last decision of this review back; None where there is none. Waits for the disk.

        Raises:
            DatasetError: something else was done to captions since: that is to be undone first.
            DiskError: the journal cannot be read or written.
        """
        if not self._decided:
            return None
        last = self._decided[-1]
        outcome = Outcome()
        if last.step:
            newest = self._journal.undoable()
            if newest is None or newest.number != last.step:
                raise DatasetError(
                    "The decision cannot be taken back here",
                    "captions were changed in another way since, or it was undone already",
                    "Undo in the dataset pane.",
                )
            outcome = undo(self._journal) or outcome
        self._decided.pop()
        for item in last.items:
            _mark(item, "")
        known = set(map(id, self.items))
        self.items[last.at : last.at] = [item for item in last.items if id(item) not in known]
        self.at = min(last.at, max(0, len(self.items) - 1))
        return outcome

    def _decide(self, items: list[Item], step: int) -> None:
        if not items:
            return
        gone = set(map(id, items))
        first = next((at for at, item in enumerate(self.items) if id(item) in gone), 0)
        before = sum(id(item) in gone for item in self.items[: self.at])
        self._decided.append(Decision(tuple(items), first, step))
        self.items = [item for item in self.items if id(item) not in gone]
        self.at = max(0, min(self.at - before, len(self.items) - 1))


def waiting(rows: Sequence[Row], stop: Callable[[], bool] = lambda: False) -> tuple[list[Item], int]:
    """What waits for a decision among ``rows``, and how many drafts are damaged. Waits for the disk.

    A text that is the caption already, or belongs to a caption that cannot be read or changed, is left out.
    """
    by_path = {row.path: row for row in rows if not is_shipped(row.path) and row.code != "caption"}
    items, damaged = [], 0
    for path, draft in drafts_of(by_path):
        if stop():
            break
        if isinstance(draft, DatasetError):
            damaged += 1
        elif not draft.verdict and draft.text != (by_path[path].caption or "").strip():
            items.append(Item(by_path[path], draft))
    return items, damaged


def _only_adds(item: Item) -> bool:
    return all(not item.pieces[at].before.strip() for at in item.choices)


def _mark(item: Item, verdict: str) -> None:
    """Keep the verdict; where the disk refuses, the picture comes up once more."""
    item.draft = replace(item.draft, verdict=verdict)
    with contextlib.suppress(EngineError):
        save_draft(item.row.path, item.draft)
