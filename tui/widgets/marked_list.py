"""A list whose chosen line has a sign in front, so that it can be told without colour."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.command import CommandList
from textual.strip import Strip
from textual.widgets import OptionList


def _marked(options: OptionList, y: int, strip: Strip) -> Strip:
    """``strip`` with ``>`` in its first cell, where it is the first line of the chosen option."""
    chosen = options.highlighted
    if chosen is None or options._index_to_line.get(chosen) != options.scroll_offset.y + y or not strip.cell_length:
        return strip
    style = next((segment.style for segment in strip if segment.style is not None), Style.null())
    return Strip.join([Strip([Segment(">", style)], 1), strip.crop(1)])


class MarkedList(OptionList):
    """A list to choose from."""

    def render_line(self, y: int) -> Strip:
        """One line, with the sign where it is the chosen one."""
        return _marked(self, y, super().render_line(y))


class MarkedCommands(CommandList):
    """The palette's list."""

    def render_line(self, y: int) -> Strip:
        """One line, with the sign where it is the chosen one."""
        return _marked(self, y, super().render_line(y))
