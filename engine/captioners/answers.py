"""A model's answer as the text of a caption.

Models are files from the internet and may answer anything. What leaves here is one line of text that
:func:`engine.dataset.captions.caption_text` reads back as it is, with nothing in it that cannot be seen.
"""

from __future__ import annotations

import unicodedata

from engine.dataset.captions import with_trigger

MAX_CHARACTERS = 8000
"""Longer than any text encoder reads; a caption file may hold eight times as much."""

_JOINERS = {"\u200d", "\ufe0e", "\ufe0f"}
_QUOTES = (('"', '"'), ("\u201c", "\u201d"), ("'", "'"))


def cleaned(answer: str, trigger: str = "") -> str:
    """``answer`` as a caption: on one line, without control and invisible characters or quotes around it, cut at
    a word after 8,000 characters, and with ``trigger`` in front where it is missing.

    An answer that says nothing stays empty: a trigger word alone would look like a caption.
    """
    text = " ".join("".join(map(_kept, answer[: MAX_CHARACTERS * 4])).split())
    for left, right in _QUOTES:
        if len(text) > 2 and text.startswith(left) and text.endswith(right) and left not in text[1:-1]:
            text = text[1:-1].strip()
    if len(text) > MAX_CHARACTERS:
        text = text[:MAX_CHARACTERS].rpartition(" ")[0] or text[:MAX_CHARACTERS]
    return with_trigger(text, trigger.strip()) if text else ""


def _kept(char: str) -> str:
    if char in _JOINERS:
        return char
    category = unicodedata.category(char)
    if char in "\t\n\r\x0b\x0c\x85" or category in ("Zl", "Zp"):
        return " "
    return "" if category in ("Cc", "Cf", "Cs", "Cn", "Co") else char
