"""The skeleton of a caption: a sentence with slots to be filled in, and the way from one slot to the next.

A slot is a word in square brackets, as in ``[light]``. The user's settings may have a sentence with slots of its
own (``editing.template``), and a run's configuration one for its dataset (``dataset.captions.template``). What is in
brackets and is no slot of the sentence is text like any other. Pure functions.
"""

from __future__ import annotations

import re

TEMPLATE = "[framing] of [subject], wearing [clothes], [light], [gaze]"
"""What a caption of a person says: how much is in the picture, who, in what, how lit, looking where."""

_SLOT = re.compile(r"\[[^\[\]\n]{1,40}\]")


def slots_of(template: str) -> frozenset[str]:
    """The slots of a template, with their brackets."""
    return frozenset(_SLOT.findall(template))


def skeleton(template: str, trigger: str = "") -> str:
    """The template, behind the trigger word if there is one."""
    return f"{trigger}, {template}" if trigger and trigger not in template else template


def next_slot(text: str, at: int, slots: frozenset[str]) -> tuple[int, int] | None:
    """Start and end of the first slot that begins at ``at`` or behind, else of the first; None where none is left."""
    found = [match.span() for match in _SLOT.finditer(text) if match[0] in slots]
    return next((span for span in found if span[0] >= at), found[0] if found else None)


def left_open(text: str, slots: frozenset[str]) -> list[str]:
    """The slots that nobody has filled in."""
    return [slot for slot in _SLOT.findall(text) if slot in slots]
