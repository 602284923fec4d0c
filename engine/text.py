"""The one gate for text from outside: file names, captions, headers, error messages of libraries.

A terminal obeys what it is sent. Control characters, bidirectional overrides and invisible characters in a file
name could write to the clipboard, retitle the window or hide what a name says, so everything that was not
written by us passes through :func:`safe_text` before it is shown, logged or printed. Passwords and access tokens stop
here too: screens are shared, and logs are sent to others.
"""

from __future__ import annotations

import os
import re
import unicodedata
from functools import cache

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


HIDDEN = "[hidden]"
"""What stands in a text instead of a secret."""

_SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|CREDENTIALS?)$", re.IGNORECASE)
_SHORTEST = 8
"""Characters of a value in the environment that counts as a secret: a shorter one is "1", "true" or a user's name."""

_FORMS = (
    (re.compile(r"\b(?:hf_|api_org_|sk-|gh[opsu]_|github_pat_|glpat-|xox[abp]-|AKIA)[A-Za-z0-9_-]{16,4096}"), HIDDEN),
    # A key of Weights & Biases; as a part of a path 40 digits are a commit.
    (re.compile(r"(?<![\w./@-])[0-9a-f]{40}(?![\w/-])"), HIDDEN),
    (re.compile(r"(://)[^/\s@]{1,256}:[^/\s@]{1,256}(?=@)"), rf"\1{HIDDEN}"),
    (
        re.compile(
            r"((?:bearer |(?:token|secret|password|passwd|api[_-]?key|access[_-]?key)[\"']?\s?[=:]\s?)[\"']?)"
            r"[^\s\"',&;]{8,4096}",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
)
"""Secrets known by their form, and what becomes of them: the name of a setting (``api_key=``) stays."""

_MARKS = ("hf_", "api", "sk-", "gh", "glpat-", "xox", "akia", "token", "secret", "passw", "access", "bearer", "://")
_HEX = re.compile(r"[0-9a-f]{40}")


def _may_hold_secret(text: str) -> bool:
    """A quick look for what every secret of a known form has in or before it: most texts have none of it."""
    lower = text.lower()
    # any() takes twice as long, and every name on the screen comes by here.
    for mark in _MARKS:
        if mark in lower:
            return True
    return len(text) >= 40 and _HEX.search(text) is not None


def without_secrets(text: str) -> str:
    """``text`` with passwords, keys and tokens hidden: those of the environment, and those known by their form.

    Idempotent.
    """
    for value in _environment_secrets():
        text = text.replace(value, HIDDEN)
    if _may_hold_secret(text):
        for form, instead in _FORMS:
            text = form.sub(instead, text)
    return text


@cache
def _environment_secrets() -> tuple[str, ...]:
    """Values of this process's environment that are secret by their names, longest first; looked up once."""
    found = {value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST}
    return tuple(sorted(found, key=len, reverse=True))


def safe_text(text: object, limit: int = 4096, newlines: bool = False) -> str:
    """Return ``text`` without secrets and with everything a terminal could act on made visible or replaced.

    C0, C1 and DEL become ``\\xNN``, bidirectional and invisible format characters ``\\u{N}``, lone surrogates
    U+FFFD; combining marks and joiners beyond four per base are dropped; the result has at most ``limit``
    characters. Idempotent: escapes are plain ASCII.

    Args:
        text: anything; ``str()`` is taken of it.
        limit: longest result in characters, at least 1; one that was cut ends in an ellipsis.
        newlines: keep line feeds (for captions and tracebacks) instead of escaping them.
    """
    raw = without_secrets(str(text))
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
