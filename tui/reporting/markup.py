"""HTML by code: what was escaped is of a type of its own, and whatever is not of it gets escaped on its way in.

So a name or a caption cannot end an attribute or begin an element, whoever puts a page together. Text from outside
passes the gate for foreign text first: a browser obeys bidirectional overrides as a terminal does.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from engine.text import safe_text

LONGEST = 20_000
"""Characters of one text on a page."""

_EMPTY = frozenset({"img", "meta", "br", "hr", "line", "col"})
"""Elements without a closing tag; those of SVG are closed by a slash, which HTML takes for nothing."""


class Markup(str):
    """HTML that may be put into a page as it is."""

    __slots__ = ()


NOTHING = Markup("")


def escaped(value: object, limit: int = LONGEST, newlines: bool = True) -> Markup:
    """``value`` as text of a page: through the gate, then without any sign that HTML takes for its own."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(safe_text(value, limit, newlines), quote=True))


def element(name: str, /, *inside: object, **attributes: object) -> Markup:
    """One element.

    Args:
        name: of the element; ours, never from outside.
        inside: its contents, one after the other; what is no :class:`Markup` is escaped.
        attributes: ``class_`` and the like lose their last underscore, the others become hyphens. None and False
            leave one out, True writes its name alone.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        shown = key.rstrip("_").replace("_", "-")
        words.append(shown if value is True else f'{shown}="{escaped(value)}"')
    head = " ".join(words)
    if name in _EMPTY:
        return Markup(f"<{head}/>")
    return Markup("".join((f"<{head}>", *map(escaped, inside), f"</{name}>")))


def joined(parts: Iterable[object], between: object = "") -> Markup:
    """Parts one after the other, ``between`` every two of them."""
    return Markup(escaped(between).join(map(escaped, parts)))


def table(
    head: Iterable[object], rows: Iterable[Iterable[object]], caption: str = "", class_: str | None = None
) -> Markup:
    """A table whose rows begin with a heading; it scrolls by itself where the page is narrow."""
    first = element("tr", *(element("th", cell, scope="col") for cell in head))
    body = [
        element("tr", *(
            element("td", cell) if number else element("th", cell, scope="row") for number, cell in enumerate(row)
        ))
        for row in rows
    ]  # fmt: skip
    title = element("caption", caption) if caption else NOTHING
    inner = element("table", title, element("thead", first), element("tbody", *body), class_=class_)
    # Reached by the keyboard, so that it can be scrolled without a mouse.
    return element("div", inner, class_="scroll", tabindex="0", role="group", aria_label=caption or "table")


def section(title: str, *inside: object, id_: str) -> Markup:
    """A part of the page under its heading; nothing where there is nothing in it."""
    if not any(inside):
        return NOTHING
    heading = element("h2", title, id=f"{id_}-title")
    return element("section", heading, *inside, id=id_, aria_labelledby=f"{id_}-title")
