"""One chart as inline SVG: lines with error bars, a marked range, marked places. Knows nothing of runs.

Every point has its figures as ``<title>``, which browsers show beside the pointer and readers read aloud; colours
are the page's (classes ``line-0`` and so on), and lines differ in dashes and signs too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tui.reporting.markup import Markup, element, joined
from tui.units import number

WIDTH, HEIGHT = 720, 280
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 14, 42
KINDS = 8
"""Kinds of lines that the page has looks for."""

MOST_DOTS, MANY_DOTS = 400, 80
"""Points beyond which a line has no dots, and those beyond which they are small."""


@dataclass(frozen=True)
class Point:
    """A value; ``error`` is half the length of its error bar."""

    x: float
    y: float
    error: float = 0.0


@dataclass(frozen=True)
class Line:
    """A curve; ``values`` names what is in its points. Values that are not finite are left out."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Marks:
    """What is marked along the x axis: a range, places with words (drawn as lines), and ticks for saved files."""

    first: float = 0.0
    last: float = 0.0
    range_words: str = ""
    places: tuple[tuple[float, str], ...] = ()
    saved: tuple[tuple[float, str], ...] = ()


NO_MARKS = Marks()


@dataclass(frozen=True)
class Scale:
    """From values to places in the picture."""

    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> str:
        """Across."""
        part = (value - self.x0) / ((self.x1 - self.x0) or 1)
        return f"{LEFT + part * (WIDTH - LEFT - RIGHT):.1f}"

    def y(self, value: float) -> str:
        """Down."""
        part = (value - self.y0) / ((self.y1 - self.y0) or 1)
        return f"{HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM):.1f}"


def chart(
    title: str,
    lines: Sequence[Line],
    x_name: str = "epoch",
    y_name: str = "",
    marks: Marks = NO_MARKS,
    words: str = "",
    from_zero: bool = False,
) -> Markup:
    """A figure with the lines that have points; nothing where none has.

    Args:
        title: what it shows.
        lines: in the order of their looks.
        x_name: what runs across.
        y_name: what is measured.
        marks: along the x axis.
        words: below the title: how to read it.
        from_zero: the y axis begins at 0.
    """
    shown = [(kind, _finite(line)) for kind, line in enumerate(lines)]
    shown = [(kind, line) for kind, line in shown if line.points]
    if not shown:
        return Markup("")
    scale = _scale([line for _, line in shown], from_zero)
    drawing = element(
        "svg",
        element("title", title),
        *_range(scale, marks),
        *_axes(scale, x_name, y_name),
        *_places(scale, marks),
        *(_line(scale, kind % KINDS, line, x_name) for kind, line in shown),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title}: {_in_words([line for _, line in shown], x_name)}",
    )
    told = element("p", words, class_="hint") if words else ""
    key = _key(shown) if len(shown) > 1 else ""
    return element("figure", element("figcaption", element("h3", title), told), drawing, key, class_="chart")


def _finite(line: Line) -> Line:
    points = [point for point in line.points if math.isfinite(point.x) and math.isfinite(point.y)]
    return Line(line.name, tuple(points))


def _scale(lines: Sequence[Line], from_zero: bool) -> Scale:
    points = [point for line in lines for point in line.points]
    xs = [point.x for point in points]
    low = 0.0 if from_zero else min(point.y - point.error for point in points)
    high = max(point.y + point.error for point in points)
    air = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    return Scale(min(xs), max(xs), low if from_zero else low - air, high + air)


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most about ``most`` round values from ``low`` to ``high``."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    raw = span / most
    base = 10.0 ** math.floor(math.log10(raw))
    apart = next(base * factor for factor in (1, 2, 5, 10) if base * factor >= raw * 0.999)
    first = math.ceil(low / apart - 1e-9)
    return [place * apart for place in range(first, math.floor(high / apart + 1e-9) + 1)]


def _axes(scale: Scale, x_name: str, y_name: str) -> list[Markup]:
    drawn = []
    for value in ticks(scale.y0, scale.y1, 5):
        y = scale.y(value)
        drawn.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid-line"))
        drawn.append(_word(LEFT - 8, y, f"{value + 0.0:.4g}", "end", dy="0.32em"))
    across = [value for value in ticks(scale.x0, scale.x1, 10) if value == int(value)]
    for value in across:
        drawn.append(_word(scale.x(value), HEIGHT - BOTTOM + 20, f"{int(value)}", "middle"))
    drawn.append(_word(WIDTH - RIGHT, HEIGHT - 6, x_name, "end"))
    if y_name:
        drawn.append(_word(LEFT - 56, HEIGHT - 6, y_name, "start"))
    return drawn


def _word(x: object, y: object, text: str, anchor: str, **more: object) -> Markup:
    return element("text", text, x=x, y=y, text_anchor=anchor, **more)


def _range(scale: Scale, marks: Marks) -> list[Markup]:
    if not marks.range_words:
        return []
    # Half a unit to each side: a range of one epoch is seen too.
    first, last = max(marks.first - 0.5, scale.x0), min(marks.last + 0.5, scale.x1)
    if last <= first:
        return []
    x0, x1 = float(scale.x(first)), float(scale.x(last))
    box = element("rect", x=f"{x0:.1f}", y=TOP, width=f"{x1 - x0:.1f}", height=HEIGHT - TOP - BOTTOM)
    return [element("g", element("title", marks.range_words), box, class_="range")]


def _places(scale: Scale, marks: Marks) -> list[Markup]:
    drawn = []
    for value, words in marks.saved:
        if scale.x0 <= value <= scale.x1:
            x, y = float(scale.x(value)), HEIGHT - BOTTOM
            tick = element("path", d=f"M{x:.1f} {y}l-3.5 6h7z")
            drawn.append(element("g", element("title", words), tick, class_="saved"))
    for value, words in marks.places:
        if scale.x0 <= value <= scale.x1:
            across = scale.x(value)
            line = element("line", x1=across, x2=across, y1=TOP, y2=HEIGHT - BOTTOM)
            drawn.append(element("g", element("title", words), line, class_="place"))
    return drawn


def _line(scale: Scale, kind: int, line: Line, x_name: str) -> Markup:
    places = [(scale.x(point.x), scale.y(point.y)) for point in line.points]
    course = "M" + "L".join(f"{x} {y}" for x, y in places)
    drawn = [element("path", d=course, class_="course")]
    for point, (x, _) in zip(line.points, places, strict=True):
        if point.error:
            y1, y2 = scale.y(point.y - point.error), scale.y(point.y + point.error)
            drawn.append(element("path", d=f"M{x} {y1}V{y2}m-3 0h6M{float(x) - 3:.1f} {y1}h6", class_="error"))
    if len(places) <= MOST_DOTS:
        radius = "3" if len(places) <= MANY_DOTS else "1.5"
        drawn += [
            _dot(line.name, point, x, y, x_name, radius) for point, (x, y) in zip(line.points, places, strict=True)
        ]
    return element("g", *drawn, class_=f"line line-{kind}")


def _dot(name: str, point: Point, x: str, y: str, x_name: str, radius: str) -> Markup:
    error = f" ± {number(point.error, 8)}" if point.error else ""
    words = f"{name}: {number(point.y, 8)}{error} at {x_name} {point.x:g}"
    return element("circle", element("title", words), cx=x, cy=y, r=radius)


def _key(shown: Sequence[tuple[int, Line]]) -> Markup:
    """Which line is which, below the picture: it wraps where a picture would not."""
    rows = []
    for kind, line in shown:
        stroke = element("line", x1="0", x2="26", y1="6", y2="6", class_="course")
        dot = element("circle", cx="13", cy="6", r="3")
        sample = element("svg", element("g", stroke, dot, class_=f"line line-{kind % KINDS}"), viewBox="0 0 26 12",
                         aria_hidden="true")  # fmt: skip
        rows.append(element("li", sample, " ", line.name))
    return element("ul", joined(rows), class_="key")


def _in_words(lines: Sequence[Line], x_name: str) -> str:
    """For those who do not see it: where each line begins, its lowest point, and where it ends."""
    told = []
    for line in lines:
        first, last = line.points[0], line.points[-1]
        lowest = min(line.points, key=lambda point: point.y)
        told.append(
            f"{line.name} from {number(first.y, 8)} at {x_name} {first.x:g} to {number(last.y, 8)} at {x_name} "
            f"{last.x:g}, lowest {number(lowest.y, 8)} at {lowest.x:g}"
        )
    return "; ".join(told)
