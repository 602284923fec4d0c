"""Asks the terminal what it can do, before the screen starts: one question, one wait, and no key lost.

All questions go out in one write; the last, which every terminal answers, is the fence: what was not answered before
it never will be. What else comes meanwhile was typed by the user and is handed on. Answers come from outside: they
are bounded and strictly parsed, and whatever is no answer counts as typed.
"""

from __future__ import annotations

import locale
import os
import re
import select
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tui.terminal.output import send_all
from tui.terminal.traits import Traits

TIMEOUT_S = 1.0
"""Longest wait for the fence's answer."""

MOST_BYTES = 8192
"""Read at most; a user types less in a second."""

FENCE = "\x1b[c"
_CELL = "\x1b[16t\x1b[14t"
_KITTY = "\x1b_Gi=4207,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"

_FENCE = re.compile(rb"\x1b\[\?([\d;]{1,64})c")
_CELL_SIZE = re.compile(rb"\x1b\[6;(\d{1,4});(\d{1,4})t")
_WINDOW_SIZE = re.compile(rb"\x1b\[4;(\d{1,6});(\d{1,6})t")
_KITTY_ANSWER = re.compile(rb"\x1b_Gi=4207(?:,[^;\x1b]{0,64})?;([^\x1b]{0,256})\x1b\\")
_ANSWERS = (_FENCE, _CELL_SIZE, _WINDOW_SIZE, _KITTY_ANSWER)

_LARGEST_CELL = 200
"""Pixels; a terminal that claims more is not believed."""


@dataclass(frozen=True)
class Probed:
    """What the probe found, and what was typed meanwhile."""

    traits: Traits
    typed: bytes
    answered: bool


def probe(
    input_fd: int, output_fd: int, environment: Mapping[str, str] | None = None, timeout_s: float = TIMEOUT_S
) -> Probed:
    """Ask the terminal on ``output_fd``; its input must be raw, or the answers would be echoed and held back."""
    environ = os.environ if environment is None else environment
    term = environ.get("TERM", "")
    multiplexer = bool(environ.get("TMUX") or environ.get("STY")) or term.startswith(("screen", "tmux"))
    # Multiplexers take the picture question for a title; the Linux console prints it.
    graphics = not multiplexer and term != "linux"
    begin = time.monotonic()
    send_all(output_fd, (_KITTY + _CELL if graphics else "") + FENCE, timeout_s)
    data, fence_s = _read_to_fence(input_fd, begin + timeout_s)
    columns, rows = _size(output_fd)
    cell = _cell_size(data, columns, rows)
    traits = Traits(
        columns=columns,
        rows=rows,
        cell_width=cell[0],
        cell_height=cell[1],
        term=term,
        colorterm=environ.get("COLORTERM", ""),
        no_color="NO_COLOR" in environ,
        utf8=_locale_is_utf8(),
        images=_images(data) if graphics else "",
        round_trip_ms=round((fence_s - begin) * 1000, 1) if fence_s else 0.0,
        ssh=bool(environ.get("SSH_CONNECTION") or environ.get("SSH_TTY")),
        multiplexer=multiplexer,
    )
    return Probed(traits, without_answers(data), bool(fence_s))


def without_answers(data: bytes) -> bytes:
    """``data`` less the answers to the probe's questions: those that come late must not count as keys."""
    for pattern in _ANSWERS:
        data = pattern.sub(b"", data)
    return data


def settle(input_fd: int, output_fd: int, patience_s: float) -> None:
    """Read and drop what is still on its way from the terminal: answers, mouse moves, keys in the screen's encoding.

    For the end, when the modes are undone but a distant terminal does not know it yet.
    """
    if send_all(output_fd, FENCE, patience_s):
        _read_to_fence(input_fd, time.monotonic() + patience_s)


def _read_to_fence(fd: int, end: float) -> tuple[bytes, float]:
    """What came until the fence's answer was complete, and when that was; 0 when it did not come."""
    data = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while len(data) < MOST_BYTES:
        remaining = end - time.monotonic()
        if remaining <= 0 or not poll.poll(remaining * 1000):
            break
        try:
            part = os.read(fd, MOST_BYTES - len(data))
        except BlockingIOError:
            continue
        except OSError:
            break
        if not part:
            break
        data += part
        if _FENCE.search(data):
            return data, time.monotonic()
    return data, 0.0


def _size(fd: int) -> tuple[int, int]:
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return 80, 24
    return columns or 80, rows or 24


def _cell_size(data: bytes, columns: int, rows: int) -> tuple[int, int]:
    """Width and height of a cell in pixels; 0, 0 when the terminal did not say, or nothing that can be."""
    if match := _CELL_SIZE.search(data):
        height, width = int(match[1]), int(match[2])
    elif match := _WINDOW_SIZE.search(data):
        height, width = int(match[1]) // rows, int(match[2]) // columns
    else:
        return 0, 0
    believable = 0 < width <= _LARGEST_CELL and 0 < height <= _LARGEST_CELL
    return (width, height) if believable else (0, 0)


def _images(data: bytes) -> str:
    answer = _KITTY_ANSWER.search(data)
    if answer and answer[1] == b"OK":
        return "kitty"
    fence = _FENCE.search(data)
    return "sixel" if fence and b"4" in fence[1].split(b";")[1:] else ""


def _locale_is_utf8() -> bool:
    codeset = locale.nl_langinfo(locale.CODESET) if hasattr(locale, "nl_langinfo") else "UTF-8"
    return codeset.upper().replace("-", "") == "UTF8"
