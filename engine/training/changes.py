"""What is not as it was when a state was saved, in plain words, and what each difference means for the run.

Two records go in, a list of :class:`engine.events.Changed` comes out. Pure: nothing is read here, so the look before
a resume and the engine's own check say the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from engine.config import RunConfig
from engine.config_names import flat
from engine.errors import RunError
from engine.events import Changed
from engine.text import safe_text
from engine.training.record import MODEL_FILES, Record

SHOWN = 3
"""Pictures named; of more only their number is told."""

VALUE_CHARS = 120
"""Longest value shown."""

REFUSED, COURSE, LATER, ROUNDING, LENGTH, SPEED, SAVED = (
    "refused", "course", "later", "rounding", "length", "speed", "saved",
)  # fmt: skip
"""What a difference means; see :class:`engine.events.Changed`."""

ORDER = (REFUSED, COURSE, LATER, ROUNDING, LENGTH, SPEED, SAVED)

_MEANING = tuple(
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        # The state holds matrices and averages of these: another shape or kind cannot take them.
        (r"optimizer\.name|lora\.rank", REFUSED),
        (r"lora\.resume_from|sampling\..*|saving\..*|training\.state_every_steps", SAVED),
        (r"version|name|runs_dir|cache_dir|faults\..*|stop\..*|tracking\..*", SAVED),
        (r"dataset\.(folders\[\d+\]\.path|masks\.folder)", SAVED),
        (r"validation\.(folder|every_epochs|every_steps|budget|sigmas|prompts)", SAVED),
        # Files count by what is in them, which is compared on its own.
        (r"model\.(transformer|autoencoder|clip_l|t5|clip_tokenizer|t5_tokenizer|download_tokenizers)", SAVED),
        (r"memory\.(precision|compute)", COURSE),
        (r"training\.(gradient_checkpointing|threads)|memory\..*", SPEED),
        (r"training\.(device|deterministic)", ROUNDING),
    )
)
"""What a setting decides, by the first pattern that its whole name matches; anything else decides the course."""


def compare(before: Record, now: Record) -> list[Changed]:
    """Every difference that matters, the gravest first; each side as far as it is known."""
    found = [
        *_files(before, now),
        *_settings(before.settings, now.settings),
        *_pictures(before, now),
        *_versions(before.versions, now.versions),
    ]
    return sorted(found, key=lambda change: ORDER.index(change.meaning))


def refusal(found: Sequence[Changed]) -> RunError | None:
    """The error for what a run cannot go on with; None where it can."""
    refused = [change for change in found if change.meaning == REFUSED]
    if not refused:
        return None
    return RunError(
        "The run cannot go on with what was changed",
        "\n".join(map(str, refused)),
        "Put back what was there, or start a new run with lora.resume_from.",
    )


def unexplained(names: Sequence[str], found: Sequence[Changed]) -> list[str]:
    """Of the digests called ``names`` that differ, those whose difference none of ``found`` tells."""
    told = {change.name for change in found}
    settings = {"settings"} if any("." in name or name == "processes" for name in told) else set()
    encoders = {"encoders"} if told & {MODEL_FILES[name] for name in ("autoencoder", "clip_l", "t5")} else set()
    # Of other pictures the captions are others too.
    pictures = {"pictures", "captions"} if any(name.startswith(_OF_PICTURES) for name in told) else set()
    return [name for name in names if name not in told | settings | encoders | pictures]


_OF_PICTURES = ("pictures ", "repeats of ", "regularization of ", "crop of ", "masks of ")


def meaning_of(setting: str, schedule: str) -> str:
    """What a change of ``setting`` means for a run whose ``schedule`` has that name."""
    if setting in ("training.epochs", "training.steps"):
        # Every other schedule is stretched over the run's length.
        return LENGTH if schedule == "constant" else COURSE
    return next((meaning for pattern, meaning in _MEANING if pattern.fullmatch(setting)), COURSE)


def _files(before: Record, now: Record) -> Iterator[Changed]:
    for name, (path, mark) in now.files.items():
        old_path, old_mark = before.files.get(name, ("", mark))
        if mark != old_mark:
            meaning = REFUSED if name == "transformer" else COURSE
            yield _changed(meaning, MODEL_FILES[name], f"{old_path} ({old_mark[:12]})", f"{path} ({mark[:12]})")


def _settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Changed]:
    try:
        # A setting that came with a later version had its default before.
        before = RunConfig.model_validate(before).model_dump(mode="json")
    except ValidationError:  # one that is known no more: the rest can be compared
        now = {name: value for name, value in now.items() if name in before}
    old, new = flat(before, _WHOLE), flat(now, _WHOLE)
    schedule = str(new.get("schedule.name", ""))
    for name in [*new, *(name for name in old if name not in new)]:
        if old.get(name) != new.get(name):
            yield _changed(meaning_of(name, schedule), name, _shown(old.get(name)), _shown(new.get(name)))


_WHOLE = frozenset({"sampling.prompts"})
"""Long, and none of their words changes what is learned."""


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "{2}x{3} at {0},{1}".format(*value)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"{len(value)} of them"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "unset", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _pictures(old: Record, new: Record) -> Iterator[Changed]:
    before, now = old.pictures, new.pictures
    both = [place for place in now if place in before]
    replaced = [place for place in both if now[place].digest != before[place].digest]
    removed, added = [p for p in before if p not in now], [p for p in now if p not in before]
    for word, places in _apart("removed", removed, "excluded", new.excluded):
        yield _changed(COURSE, f"pictures {word}", _names(places), "")
    for word, places in _apart("added", added, "no longer excluded", old.excluded):
        yield _changed(COURSE, f"pictures {word}", "", _names(places))
    if replaced:
        yield _changed(COURSE, "pictures replaced", "", _names(replaced))
    for name in ("repeats", "regularization", "crop"):
        other = [place for place in both if getattr(now[place], name) != getattr(before[place], name)]
        if other:
            values = [_shown(getattr(side[other[0]], name)) for side in (before, now)]
            yield _changed(COURSE, f"{name} of {_names(other)}", *values)
    if masks := [place for place in both if now[place].mask != before[place].mask]:
        yield _changed(COURSE, f"masks of {_names(masks)}", "", "other ones")


def _apart(
    word: str, places: Sequence[str], own_word: str, own: Collection[str]
) -> Iterator[tuple[str, Sequence[str]]]:
    """``places`` with the word for them: those of ``own`` have a word of their own."""
    for said, some in (word, [p for p in places if p not in own]), (own_word, [p for p in places if p in own]):
        if some:
            yield said, some


def _versions(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Changed]:
    meanings = {"precision": COURSE, "processes": COURSE}
    for name, value in now.items():
        old = before.get(name, "")
        if old and value and old != value:
            yield _changed(meanings.get(name, ROUNDING), _VERSION_NAMES.get(name, name), old, value)


_VERSION_NAMES = {"torch": "torch version", "lorakiln": "lorakiln version"}


def _names(places: Sequence[str]) -> str:
    shown = ", ".join(place.partition("/")[2] for place in places[:SHOWN])
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return shown + more


def _changed(meaning: str, name: str, before: str, after: str) -> Changed:
    return Changed(
        meaning, safe_text(name, 2 * VALUE_CHARS), safe_text(before, VALUE_CHARS), safe_text(after, VALUE_CHARS)
    )
