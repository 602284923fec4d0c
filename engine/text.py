"""The one gate for text from outside: file names, captions, headers, error messages of libraries.

A terminal obeys what it is sent. Control characters, bidirectional overrides and invisible characters in a file
name could write to the clipboard, retitle the window or hide what a name says, so everything that was not
written by us passes through :func:`safe_text` before it is shown, logged or printed.
"""

from __future__ import annotations

import unicodedata

MAX_COMBINING = 4
"""Combining marks kept per base character; more draw over the lines around them."""

# Zero-width joiner and variation selectors hold emoji together; other format characters are invisible.
_KEPT_FORMAT = {"\u200d", "\ufe0e", "\ufe0f"}


def safe_text(text: object, limit: int = 4096, newlines: bool = False) -> str:
    """Return ``text`` with everything a terminal could act on made visible or replaced.

    C0, C1 and DEL become ``\\xNN``, bidirectional and invisible format characters ``\\u{N}``, lone surrogates
    U+FFFD; combining marks beyond four per base are dropped; the result is cut at ``limit`` characters.
    Idempotent: escapes are plain ASCII.

    Args:
        text: anything; ``str()`` is taken of it.
        limit: longest result in characters; a longer one ends in an ellipsis.
        newlines: keep line feeds (for captions and tracebacks) instead of escaping them.
    """
    raw = str(text)
    if len(raw) > limit:
        raw = raw[: limit - 1] + "…"
    if raw.isascii() and raw.isprintable():
        return raw
    out: list[str] = []
    marks = 0
    for char in raw:
        category = unicodedata.category(char)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if char == "\n" and newlines:
            out.append(char)
        elif category == "Cs":
            out.append("\ufffd")
        elif category == "Cc":
            out.append(f"\\x{ord(char):02x}")
        elif (category == "Cf" and char not in _KEPT_FORMAT) or category in ("Zl", "Zp"):
            out.append(f"\\u{{{ord(char):x}}}")
        elif marks <= MAX_COMBINING:
            out.append(char)
    return "".join(out)
