"""The gate between foreign text and the terminal.

:func:`safe` is what widgets show: control characters made visible, no markup, never a raw string. Because one
forgotten call would be enough, :func:`install_backstop` also guards the last step: every strip that Textual writes
is cleaned of control characters, unless its segment says that it *is* a control segment (image protocols).
"""

from __future__ import annotations

import re
from typing import Any

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.strip import Strip

from engine.text import safe_text

REPLACEMENT = "\ufffd"

# C0, DEL, C1, bidirectional marks and overrides, line and paragraph separators, zero-width space, byte order mark,
# interlinear and tag characters, lone surrogates. Joiner and variation selectors stay: they hold emoji together.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
# What Textual's own widgets draw: the parts of a scroll bar, frames, an ellipsis.
_LIKE_ASCII = str.maketrans(
    dict.fromkeys("▁▂▃▄▅▆▇█▏▎▍▌▋▊▉▔▕", " ")
    | dict.fromkeys("─━═", "-")
    | dict.fromkeys("│┃║", "|")
    | dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯┏┓┗┛", "+")
    | {"…": "."}
)
_NOT_ASCII = re.compile(r"[^\x20-\x7e]")


def safe(text: object, limit: int = 2000, newlines: bool = False, style: str = "") -> Content:
    """Return ``text`` as content that a widget can show: cleaned by :func:`engine.text.safe_text`, never markup."""
    return (
        Content.styled(safe_text(text, limit, newlines), style)
        if style
        else Content(safe_text(text, limit, newlines))
    )


def neutral(text: str) -> str:
    """Replace what a terminal could act on by U+FFFD, one cell for one character; the rest is as it was."""
    return _UNSAFE.sub(REPLACEMENT, text)


def ascii_only(text: str) -> str:
    """Replace every character that is not printable ASCII by a like one, or by as many ``?`` as it takes cells."""
    return _NOT_ASCII.sub(lambda match: "?" * cell_len(match.group()), text.translate(_LIKE_ASCII))


class _Backstop:
    """What the installed guard knows: the original method and whether the terminal takes ASCII only."""

    original: Any = None
    ascii_terminal = False


def install_backstop(ascii_terminal: bool = False) -> None:
    """Guard ``Strip.render`` for the whole process; calling it again only changes ``ascii_terminal``."""
    _Backstop.ascii_terminal = ascii_terminal
    if _Backstop.original is None:
        _Backstop.original = Strip.render
        Strip.render = _guarded_render  # type: ignore[method-assign,assignment]
        Strip.render_style = classmethod(_render_style)  # type: ignore[method-assign,assignment]


def _render_style(cls: type[Strip], style: Style, text: str, color_system: ColorSystem) -> str:
    """Text in the colours that this terminal has.

    Rich's styles keep the codes they were first written with; a host writes to terminals of other colours later. No
    hyperlinks: we make none.
    """
    codes = cls.render_ansi(style, color_system)
    return f"\x1b[{codes}m{text}\x1b[0m" if codes else text


def _guarded_render(strip: Strip, console: Any) -> str:
    segments = strip._segments
    if strip._render_cache is not None:  # it came through here before
        return strip._render_cache
    clean = _ascii_text if _Backstop.ascii_terminal else neutral
    if any(not control and clean(text) != text for text, _, control in segments):
        cleaned = [
            segment if segment.control else Segment(clean(segment.text), segment.style or Style.null())
            for segment in segments
        ]
        return str(_Backstop.original(Strip(cleaned, strip.cell_length), console))
    return str(_Backstop.original(strip, console))


def _ascii_text(text: str) -> str:
    return ascii_only(neutral(text))
