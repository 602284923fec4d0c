"""Which part of a picture is shown at a zoom: pure arithmetic in parts of the picture's width and height."""

from __future__ import annotations

from dataclasses import dataclass, replace

ZOOMS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Times the size at which the whole picture fits."""

PAN = 0.25
"""Part of what is seen that one step moves."""

Size = tuple[float, float]
"""Width and height: of the picture in pixels, of the room in any unit that is as wide as high."""

Part = tuple[float, float, float, float]
"""Left, top, right and bottom, as parts of width and height."""


@dataclass(frozen=True)
class Look:
    """How near, and at which point of the picture: parts of its width and height."""

    zoom: float = 1.0
    x: float = 0.5
    y: float = 0.5


def part_of(look: Look, picture: Size, room: Size) -> Part:
    """What is seen of ``picture`` in ``room``: more than the picture's own shape where there is room for it."""
    scale = min(room[0] / picture[0], room[1] / picture[1]) * look.zoom
    wide, high = (min(1.0, room[axis] / (picture[axis] * scale)) for axis in (0, 1))
    left, top = max(0.0, min(look.x - wide / 2, 1 - wide)), max(0.0, min(look.y - high / 2, 1 - high))
    return left, top, left + wide, top + high


def moved(look: Look, picture: Size, room: Size, right: float, down: float) -> Look:
    """Looking further to a side, by parts of what is seen; never beyond the edges."""
    left, top, end, bottom = part_of(look, picture, room)
    x, y = (left + end) / 2 + right * (end - left), (top + bottom) / 2 + down * (bottom - top)
    return _inside(replace(look, x=x, y=y), picture, room)


def zoomed(look: Look, picture: Size, room: Size, by: int, at: tuple[float, float] = (0.5, 0.5)) -> Look:
    """Nearer or farther by steps; the point ``at`` (parts of what is seen) stays where it is seen."""
    here = min(range(len(ZOOMS)), key=lambda place: abs(ZOOMS[place] - look.zoom))
    zoom = ZOOMS[max(0, min(here + by, len(ZOOMS) - 1))]
    left, top, right, bottom = part_of(look, picture, room)
    x, y = left + at[0] * (right - left), top + at[1] * (bottom - top)
    left, top, right, bottom = part_of(replace(look, zoom=zoom), picture, room)
    wide, high = right - left, bottom - top
    return _inside(Look(zoom, x + (0.5 - at[0]) * wide, y + (0.5 - at[1]) * high), picture, room)


def _inside(look: Look, picture: Size, room: Size) -> Look:
    left, top, right, bottom = part_of(look, picture, room)
    return replace(look, x=(left + right) / 2, y=(top + bottom) / 2)
