"""What was answered in the wizard that is no setting of the run: wishes, the card, the price, the page, the pilot.

Plain texts in the session, so that leaving loses nothing; here they become values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal, get_args

from profiles.schema import Wishes
from tui.setup.fields import Field
from tui.setup.notes import Note

Aim = Literal["balanced", "fastest", "quality"]

AIMS = (
    ("balanced", "balanced: fastest without losing quality"),
    ("fastest", "fastest: 8-bit products too"),
    ("quality", "best quality: bf16 as long as it fits"),
)
NF4 = (("yes", "yes, if nothing else fits"), ("no", "never"))

FIELDS: tuple[Field, ...] = (
    Field("place", "Train on", "choice", "", "The card that trains; enter lists all, with a sentence each"),
    Field("aim", "Aim", "choice", "", "What the settings below are chosen for", AIMS),
    Field("leave", "Leave free", "number", "",
          "GB of the card kept free for a desktop or other programs, beyond what they hold now", empty="0 GB"),
    Field("done", "Done by", "text", "", "A time like 07:00, or hours from now like 8h", empty="whenever it is done"),
    Field("nf4", "Allow nf4", "choice", "", "4-bit weights fit anywhere and cost some likeness", NF4),
    Field("price", "Price per hour", "number", "", "In any currency: the plan says what a run costs",
          empty="none"),
)  # fmt: skip

DEFAULTS = {"want": "", "count": "", "tried": "", "place": "", "aim": "balanced", "leave": "", "done": "",
            "nf4": "yes", "price": ""}  # fmt: skip

LAST_GB = 1024.0
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")
_HOURS = re.compile(r"(\d{1,3}(?:\.\d{1,2})?) ?h(?:ours?)?")


def begin(answers: dict[str, str]) -> None:
    """Fill in what is missing, and what another version may have left there."""
    for name, value in DEFAULTS.items():
        answers.setdefault(name, value)
    for field in FIELDS:
        if field.choices and answers[field.id] not in dict(field.choices):
            answers[field.id] = DEFAULTS[field.id]


def wishes_of(answers: Mapping[str, str], now: datetime) -> Wishes:
    """The wishes; what is typed wrongly is left out, and told of by :func:`problems_of`."""
    aim = next(known for known in get_args(Aim) if known == answers["aim"])
    return Wishes(aim, _number(answers["leave"]) or 0.0, _until(answers["done"], now) or 0.0, answers["nf4"] == "yes")


def price_of(answers: Mapping[str, str]) -> float:
    """What an hour costs; 0 where nothing is said."""
    return _number(answers["price"]) or 0.0


def problems_of(answers: Mapping[str, str], now: datetime) -> dict[str, Note]:
    """What is typed wrongly, and how it would be right."""
    notes = {}
    for name, wanted in (("leave", "a number of GB, like 2 or 1.5"), ("price", "a number, like 0.45")):
        if _number(answers[name]) is None:
            notes[name] = Note(f"Wanted: {wanted}", "bad")
    seconds = _until(answers["done"], now)
    if seconds is None:
        notes["done"] = Note("Wanted: a time like 07:00, or a number of hours like 8h", "bad")
    elif seconds:
        notes["done"] = Note(f"in {seconds / 3600:.1f} hours", "")
    return notes


def _number(text: str) -> float | None:
    """A number that is not negative; 0 for nothing, None for anything else."""
    text = text.strip().replace(",", ".")
    if not text:
        return 0.0
    if not re.fullmatch(r"\d{1,6}(\.\d{0,4})?|\.\d{1,4}", text):
        return None
    return float(text)


def _until(text: str, now: datetime) -> float | None:
    """Seconds until then; 0 for nothing, None for anything that is no time."""
    text = text.strip().lower()
    if not text:
        return 0.0
    if found := _HOURS.fullmatch(text):
        return float(found[1]) * 3600 or None
    if not (found := _CLOCK.fullmatch(text)) or int(found[1]) > 23 or int(found[2]) > 59:
        return None
    then = now.replace(hour=int(found[1]), minute=int(found[2]), second=0, microsecond=0)
    return (then - now if then > now else then + timedelta(days=1) - now).total_seconds()
