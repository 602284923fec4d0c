"""Line breaks that an editor does not know, put back where nothing was edited.

A caption may mix its line ends, and may hold breaks that only Unicode knows (U+2028 and such). An editor shows them
all as plain line feeds. In goes the text as it stood and the text as edited; out comes the edited text in which every
line that is still there, changed or not, has the break that it had.
"""

from __future__ import annotations

import re

PLAIN_ENDS = re.compile("(\r\n|\r|\n)")
"""The line ends of systems."""

ANY_BREAK = re.compile("(\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])")
"""Everything that ``str.splitlines`` takes for a line break."""


def breaks_kept(original: str, edited: str, known: re.Pattern[str] = ANY_BREAK, newline: str = "\n") -> str:
    """``edited``, whose breaks are line feeds, with the breaks of ``original`` after the lines that both have.

    Lines are counted from either end up to where the texts differ; what differs is paired line by line.

    Args:
        original: the text as it stood, with its own breaks.
        edited: the text as it is wanted; only line feeds count as breaks.
        known: what counts as a break in ``original``, :data:`PLAIN_ENDS` or :data:`ANY_BREAK`.
        newline: the break after lines that are new.

    Returns:
        A text that reads as ``edited`` does once its breaks are line feeds; with ``newline`` throughout where mixed
        breaks would run together.
    """
    old = known.split(original)
    old_lines, old_breaks = old[::2], old[1::2]
    lines = edited.split("\n")
    first = _shared(old_lines, lines, 0)
    last = _shared(old_lines[::-1], lines[::-1], first)
    breaks = [newline] * (len(lines) - 1)
    differing = min(len(old_lines), len(lines)) - first - last
    kept = min(first + differing, len(old_breaks), len(breaks))
    breaks[:kept] = old_breaks[:kept]
    if last > 1:
        breaks[1 - last :] = old_breaks[1 - last :]
    text = "".join(line + end for line, end in zip(lines, [*breaks, ""], strict=True))
    return text if known.sub("\n", text) == known.sub("\n", edited) else edited.replace("\n", newline)


def _shared(old: list[str], new: list[str], taken: int) -> int:
    """How many lines are the same from the start on, leaving ``taken`` at the end of either alone."""
    count = 0
    while count < min(len(old), len(new)) - taken and old[count] == new[count]:
        count += 1
    return count
