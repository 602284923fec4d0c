"""The signs the screen is drawn with: one set for UTF-8 terminals, one of plain ASCII for all others.

A state is told by glyph and word, never by hue alone. Every glyph is one cell wide in every font.
"""

from __future__ import annotations

import locale
import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Glyphs:
    """A set of signs; ``ascii`` tells rasters to use characters where they would use blocks and dots."""

    ascii: bool
    states: dict[str, str]
    full: str
    empty: str
    bar: str
    rail: str
    saved: str
    saved_step: str
    tick: str
    done: str
    running: str
    waiting: str
    warning: str
    error: str
    dot: str
    arrow: str
    ellipsis: str
    degree: str
    marked: str
    excluded: str
    edited: str
    times: str


UNICODE = Glyphs(
    ascii=False,
    states={
        "new": "○", "preparing": "◌", "caching": "◌", "loading": "◌", "training": "●", "paused": "‖",
        "released": "▯", "sampling": "◆", "measuring": "≈", "saving": "▼", "finished": "✓", "stopped": "■",
        "failed": "✗", "interrupted": "!",
    },
    full="█", empty="░", bar="━", rail="─", saved="◆", saved_step="◇", tick="╵", done="✓",
    running="▸", waiting="·", warning="!", error="✗", dot="·", arrow="→", ellipsis="…", degree="°",
    marked="●", excluded="×", edited="~", times="×",
)  # fmt: skip

ASCII = Glyphs(
    ascii=True,
    states={
        "new": "o", "preparing": "~", "caching": "~", "loading": "~", "training": "*", "paused": "=",
        "released": "_", "sampling": "%", "measuring": "?", "saving": "v", "finished": "+", "stopped": "#",
        "failed": "X", "interrupted": "!",
    },
    full="#", empty=".", bar="=", rail="-", saved="*", saved_step="o", tick="'", done="+",
    running=">", waiting=".", warning="!", error="X", dot="-", arrow="->", ellipsis="...", degree=" ",
    marked="*", excluded="x", edited="~", times="x",
)  # fmt: skip


def terminal_is_ascii() -> bool:
    """Whether the terminal cannot be trusted with UTF-8: another locale, or the bare Linux console."""
    if os.environ.get("TERM", "") == "linux":
        return True
    codeset = locale.nl_langinfo(locale.CODESET) if hasattr(locale, "nl_langinfo") else "UTF-8"
    return codeset.upper().replace("-", "") != "UTF8"
