"""A terminal's input settings (echo, line editing): read, changed, given back, and sent as plain values."""

from __future__ import annotations

import contextlib
import fcntl
import os
import termios
from typing import Any

Settings = list[Any]
"""What ``termios.tcgetattr`` returns: four words of flags, two speeds, and the control characters."""

_IFLAG, _LFLAG, _CC = 0, 3, 6
_WORDS = 6
_TIOCGDEV = 0x80045432
"""Linux's; Python's termios does not name it."""


def settings_of(fd: int) -> Settings | None:
    """The settings now; None where ``fd`` is no terminal, or one that is gone."""
    try:
        return termios.tcgetattr(fd)
    except termios.error:
        return None


def make_raw(fd: int, signals: bool = False) -> Settings | None:
    """Have every key come at once and as it is, unechoed; returns the settings as they are then.

    Args:
        fd: the terminal.
        signals: have ctrl+c and its like signal as before.
    """
    settings = settings_of(fd)
    if settings is None:
        return None
    settings[_LFLAG] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | (0 if signals else termios.ISIG))
    settings[_IFLAG] &= ~(termios.IXON | termios.IXOFF | termios.ICRNL | termios.INLCR | termios.IGNCR)
    settings[_CC][termios.VMIN] = 1
    settings[_CC][termios.VTIME] = 0
    give_back(fd, settings)
    return settings_of(fd)


def give_back(fd: int, settings: Settings) -> None:
    """Set ``settings``, at once and without waiting for output; a terminal that is gone is passed over."""
    with contextlib.suppress(termios.error):
        termios.tcsetattr(fd, termios.TCSANOW, settings)


def forget_typed(fd: int) -> None:
    """Drop what was typed or answered and not read yet."""
    with contextlib.suppress(termios.error):
        termios.tcflush(fd, termios.TCIFLUSH)


def to_plain(settings: Settings) -> list[Any]:
    """``settings`` as values for JSON."""
    characters = [value if isinstance(value, int) else value[0] for value in settings[_CC]]
    return [*settings[:_WORDS], characters]


def from_plain(plain: Any) -> Settings | None:
    """Settings from what another process sent; None when they are none."""
    if not (isinstance(plain, list) and len(plain) == _WORDS + 1 and isinstance(plain[_CC], list)):
        return None
    words, characters = plain[:_WORDS], plain[_CC]
    if not all(type(word) is int and 0 <= word < 2**32 for word in words):
        return None
    if len(characters) != termios.NCCS or not all(type(char) is int and 0 <= char < 256 for char in characters):
        return None
    canonical = words[_LFLAG] & termios.ICANON
    counts = () if canonical else (termios.VMIN, termios.VTIME)
    return [*words, [char if place in counts else bytes((char,)) for place, char in enumerate(characters)]]


def open_terminal(fd: int) -> int:
    """A descriptor of our own for the terminal that ``fd`` writes to.

    Opening it by name gives a separate file description, so that not blocking on it does not change the shell's.
    Where that is forbidden (after su) the controlling terminal serves, which often is the same; else a duplicate
    does, which may block.
    """
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        return os.open(os.ttyname(fd), flags)
    with contextlib.suppress(OSError):
        ours = os.open("/dev/tty", flags)
        if _device(ours) == _device(fd):
            return ours
        os.close(ours)
    return os.dup(fd)


def _device(fd: int) -> bytes:
    """The terminal that ``fd`` means, also where it was opened as /dev/tty.

    Raises:
        OSError: the system does not tell.
    """
    return fcntl.ioctl(fd, _TIOCGDEV, bytes(4))
