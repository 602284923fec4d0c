"""Curves as cells: columns of values to dots, dots to braille characters, all in a few numpy passes.

The cost of a redraw does not grow with Python work per point: 100,000 points take the same number of calls as 100.
Shapes: a raster has ``rows`` x ``columns`` cells, each cell 4 dots high and 2 dots wide. Row 0 is the top.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_WEIGHTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.uint8)
_BRAILLE = "".join(chr(0x2800 + code) for code in range(256))
_LIMIT_POINTS = 10_000


@dataclass(frozen=True)
class Spans:
    """Lowest and highest value in every dot column, NaN where a column has none. Shapes (columns * 2,)."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]


def column_spans(
    x: NDArray[np.float64], y: NDArray[np.float64], x_range: tuple[float, float], dots: int, connect: bool
) -> Spans:
    """Reduce a course to the lowest and highest value of each of ``dots`` columns, so that no spike is lost.

    Args:
        x: rising positions, shape (n,).
        y: values, shape (n,); those that are not finite are left out.
        x_range: positions of the first and last dot column.
        dots: number of dot columns.
        connect: join neighbouring points by a line, through empty columns too.
    """
    low = np.full(dots, np.nan)
    high = np.full(dots, np.nan)
    good = np.isfinite(y)
    if not good.all():
        x, y = x[good], y[good]
    # Searching the columns' edges in x costs a few hundred look-ups, not a division for every point.
    width = max(x_range[1] - x_range[0], 1e-12) / max(1, dots - 1)
    edges = np.searchsorted(x, x_range[0] + (np.arange(dots + 1) - 0.5) * width)
    present = np.flatnonzero(edges[1:] > edges[:-1])
    if not len(present):
        return Spans(low, high)
    y = y[: edges[-1]]
    starts = edges[present]
    low[present] = np.minimum.reduceat(y, starts)
    high[present] = np.maximum.reduceat(y, starts)
    return _connected(low, high, present, y, starts) if connect else Spans(low, high)


def _connected(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    present: NDArray[np.int64],
    y: NDArray[np.float64],
    starts: NDArray[np.int64],
) -> Spans:
    """Fill the columns between points with the line between them, each reaching half way to its neighbours."""
    last = np.append(starts[1:], len(y)) - 1
    between = np.arange(present[0], present[-1] + 1)
    line = np.interp(between, present, y[last])
    before = np.concatenate(([line[0]], (line[:-1] + line[1:]) / 2))
    after = np.concatenate(((line[:-1] + line[1:]) / 2, [line[-1]]))
    ends = np.stack((before, line, after))
    low[between] = np.fmin(low[between], ends.min(axis=0))
    high[between] = np.fmax(high[between], ends.max(axis=0))
    return Spans(low, high)


def codes(spans: Spans, y_range: tuple[float, float], rows: int) -> NDArray[np.uint8]:
    """Braille dot patterns of ``spans``, shape (rows, columns); values out of ``y_range`` lie on the border."""
    height = rows * 4
    scale = (height - 1) / max(y_range[1] - y_range[0], 1e-12)
    with np.errstate(invalid="ignore"):
        top = np.clip(np.rint((y_range[1] - spans.high) * scale), 0, height - 1)
        bottom = np.clip(np.rint((y_range[1] - spans.low) * scale), 0, height - 1)
        row = np.arange(height, dtype=np.float64)[:, None]
        mask = (row >= top) & (row <= bottom)  # NaN compares false: an empty column stays empty
    cells = mask.reshape(rows, 4, -1, 2).transpose(0, 2, 1, 3)
    patterns: NDArray[np.uint8] = (cells * _WEIGHTS).sum(axis=(2, 3)).astype(np.uint8)
    return patterns


class BrailleCanvas:
    """Layers of dot patterns over each other: a cell belongs to the last layer that has a dot in it."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        self.rows = rows
        self.codes = np.zeros((rows, columns), dtype=np.uint8)
        self.layer = np.zeros((rows, columns), dtype=np.uint8)

    def draw(self, spans: Spans, y_range: tuple[float, float], layer: int) -> None:
        """Put a course on top; ``layer`` (from 1) names its style."""
        new = codes(spans, y_range, self.rows)
        self.codes = np.where(new > 0, new, self.codes)
        self.layer = np.where(new > 0, np.uint8(layer), self.layer)

    def runs(self, row: int, ascii_only: bool = False) -> list[tuple[str, int]]:
        """A row as (text, layer) runs from left to right; layer 0 is blank."""
        layer = self.layer[row]
        edges = np.flatnonzero(np.diff(layer, prepend=255, append=255)).tolist()
        text = self._ascii(row) if ascii_only else "".join([_BRAILLE[code] for code in self.codes[row].tolist()])
        return [
            (text[start:end] if layer[start] else " " * (end - start), int(layer[start]))
            for start, end in pairwise(edges)
        ]

    def _ascii(self, row: int) -> str:
        return "".join(" " if not layer else ".:*#"[min(int(layer), 4) - 1] for layer in self.layer[row])


def robust_limits(*courses: NDArray[np.float64], low: float = 1.0, high: float = 99.0) -> tuple[float, float]:
    """Limits of a plot: the ``low``-th to ``high``-th percentile of the first course, and all of the others.

    A few spikes then do not flatten the curve that matters. Long courses are thinned first: limits need no
    more. Without any finite value the limits are (0, 1).
    """
    found: list[float] = []
    for number, course in enumerate(courses):
        course = course[:: max(1, len(course) // _LIMIT_POINTS)]
        course = course[np.isfinite(course)]
        if len(course):
            ends = np.percentile(course, (low, high)) if number == 0 else (course.min(), course.max())
            found.extend(float(end) for end in ends)
    if not found:
        return 0.0, 1.0
    bottom, top = min(found), max(found)
    pad = (top - bottom) * 0.04 or abs(top) * 0.05 or 0.5
    return bottom - pad, top + pad
