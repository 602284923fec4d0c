"""What the user thinks of a run's epochs: stars, notes, verdicts, blind wins, and the one that was chosen.

Lies in the run's folder as ``judged.json``, sealed; the whole is written at each change. A damaged file is set aside
as ``judged.json.bad``, never overwritten.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from engine.files import atomic_write, open_to_read
from engine.sealed import sealed, unsealed

JUDGED_NAME = "judged.json"
MAX_BYTES = 1024 * 1024
MOST_STARS = 5
NOTE_CHARS = 2000
ANSWERS = ("", "yes", "partly", "no")
"""To each question of the form; empty: not answered."""

QUESTIONS = {
    "recognisable": "Recognisable at strength 0.7 to 0.9?",
    "obeys": "Obeys the prompt?",
    "clean": "Free of artefacts?",
}
"""The short form, by the name of the field of :class:`Opinion` that holds the answer."""


@dataclass(frozen=True)
class Opinion:
    """What the user thinks of one epoch.

    Attributes:
        stars: 0 (none) to 5.
        note: free text, as typed: it has passed no gate.
        recognisable, obeys, clean: answers to :data:`QUESTIONS`, of :data:`ANSWERS`.
        wins, shown: how often it was picked in blind comparisons, of how many it was in.
    """

    stars: int = 0
    note: str = ""
    recognisable: str = ""
    obeys: str = ""
    clean: str = ""
    wins: int = 0
    shown: int = 0


NO_OPINION = Opinion()


@dataclass(frozen=True)
class Judged:
    """Opinions by epoch; ``chosen`` is the epoch that was taken along, 0 while none was."""

    epochs: Mapping[int, Opinion] = field(default_factory=dict)
    chosen: int = 0

    def of(self, epoch: int) -> Opinion:
        """The opinion on an epoch."""
        return self.epochs.get(epoch, NO_OPINION)

    def with_opinion(self, epoch: int, **changes: Any) -> Judged:
        """The same with another opinion on ``epoch``."""
        opinion = replace(self.of(epoch), **changes)
        kept = {number: one for number, one in self.epochs.items() if number != epoch}
        return replace(self, epochs=kept if opinion == NO_OPINION else kept | {epoch: opinion})

    def with_winner(self, winner: int, loser: int) -> Judged:
        """The same after a blind comparison."""
        first, second = self.of(winner), self.of(loser)
        won = self.with_opinion(winner, wins=first.wins + 1, shown=first.shown + 1)
        return won.with_opinion(loser, shown=second.shown + 1)


def read_judged(folder: Path) -> Judged:
    """The opinions kept in a run's folder; none where there is no file. A damaged file is renamed.

    Raises:
        OSError: the file is there and cannot be read.
    """
    path = folder / JUDGED_NAME
    try:
        with open_to_read(path) as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Judged()
    table: Any = None
    if len(data) <= MAX_BYTES:
        with contextlib.suppress(ValueError):
            table = unsealed(data)
    if not isinstance(table, dict):
        os.replace(path, path.with_name(path.name + ".bad"))
        return Judged()
    chosen, epochs = table.get("chosen"), table.get("epochs")
    found = {
        int(key): _opinion(value)
        for key, value in (epochs.items() if isinstance(epochs, dict) else ())
        if key.isascii() and key.isdigit() and len(key) < 7
    }
    return Judged(found, chosen if type(chosen) is int and 0 <= chosen < 10**6 else 0)


def write_judged(folder: Path, judged: Judged) -> None:
    """Write the opinions into a run's folder.

    Raises:
        DiskError: they cannot be written; what was kept before is unharmed.
    """
    epochs = {str(epoch): asdict(opinion) for epoch, opinion in sorted(judged.epochs.items())}
    table = {"version": 1, "chosen": judged.chosen, "epochs": epochs}
    atomic_write(folder / JUDGED_NAME, sealed(json.dumps(table, indent=1)))


def _opinion(table: Any) -> Opinion:
    """Every value of ``table`` that is one; the rest as if it had not been given."""
    values: dict[str, Any] = {}
    for part in fields(Opinion):
        value = table.get(part.name) if isinstance(table, dict) else None
        if part.name in QUESTIONS:
            good = value in ANSWERS
        elif part.name == "note":
            good = isinstance(value, str) and len(value) <= NOTE_CHARS
        else:
            good = type(value) is int and 0 <= value <= (MOST_STARS if part.name == "stars" else 10**9)
        if good:
            values[part.name] = value
    return Opinion(**values)
