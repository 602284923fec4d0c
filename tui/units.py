"""Numbers as people read them: durations, sizes, labels. Pure functions for the screen and the headless report."""

from __future__ import annotations

import math


def duration(seconds: float | None) -> str:
    """``seconds`` as ``MM:SS``, ``H:MM:SS`` or ``2d 03:04``; ``--:--`` when unknown."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return "--:--"
    total = round(seconds)
    hours, rest = divmod(total, 3600)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24:02d}:{rest // 60:02d}"
    if hours:
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
    return f"{rest // 60:02d}:{rest % 60:02d}"


def short_time(seconds: float) -> str:
    """A span of a step or a part of it: ``1.42 s``, ``85 ms``, ``0.3 ms``."""
    if not math.isfinite(seconds):
        return "-"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds >= 0.01:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds * 1000:.1f} ms"


def size(count: int) -> str:
    """A number of bytes: ``812 kB``, ``34.1 MB``, ``2.3 GB`` (decimal, as file managers show them)."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit in ("B", "kB") else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def number(value: float, width: int = 6) -> str:
    """A plot label of at most ``width`` characters: fixed point where it fits, else scientific."""
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    if 1e-2 <= abs(value) < 10 ** (width - 1):
        digits = max(0, width - 2 - max(1, math.floor(math.log10(abs(value))) + 1) - (value < 0))
        return f"{value:.{min(digits, 4)}f}"
    mantissa, exponent = f"{value:.{max(0, width - 5)}e}".split("e")
    return f"{mantissa}e{int(exponent)}"
