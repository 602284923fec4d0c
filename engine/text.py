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

# Letters and marks that Unicode wants drawn as nothing: fillers, further variation selectors, tags. What cannot be
# seen can make two names look alike, or carry a message to whoever copies them.
_INVISIBLE = frozenset(
    map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x2065, 0x3164, 0xFFA0,
              *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000)))
)  # fmt: skip

_CONSIDERED = 8
"""Characters looked at for each one that may come out: marks that are dropped must not cost time without end."""


def safe_text(text: object, limit: int = 4096, newlines: bool = False) -> str:
    """Return ``text`` with everything a terminal could act on made visible or replaced.

    C0, C1 and DEL become ``\\xNN``, bidirectional and invisible format characters ``\\u{N}``, lone surrogates
    U+FFFD; combining marks and joiners beyond four per base are dropped; the result has at most ``limit``
    characters. Idempotent: escapes are plain ASCII.

    Args:
        text: anything; ``str()`` is taken of it.
        limit: longest result in characters, at least 1; one that was cut ends in an ellipsis.
        newlines: keep line feeds (for captions and tracebacks) instead of escaping them.
    """
    raw = str(text)
    if len(raw) <= limit and raw.isascii() and raw.isprintable():
        return raw
    considered = raw[: limit * _CONSIDERED]
    result = "".join(_visible(considered, newlines))
    if len(result) > limit or len(considered) < len(raw):
        result = result[: limit - 1] + "…"
    return result


def _visible(text: str, newlines: bool) -> list[str]:
    """The pieces that ``text`` is shown as."""
    out: list[str] = []
    marks = 0
    for char in text:
        category = unicodedata.category(char)
        marks = marks + 1 if category in ("Mn", "Me") or char in _KEPT_FORMAT else 0
        if char == "\n" and newlines:
            out.append(char)
        elif category == "Cs":
            out.append("\ufffd")
        elif category == "Cc":
            out.append(f"\\x{ord(char):02x}")
        elif (category == "Cf" and char not in _KEPT_FORMAT) or category in ("Zl", "Zp") or char in _INVISIBLE:
            out.append(f"\\u{{{ord(char):x}}}")
            marks = 0
        elif marks <= MAX_COMBINING:
            out.append(char)
    return out
