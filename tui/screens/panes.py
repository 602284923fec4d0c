"""The panes of the run screen: which are in sight at which size, which one is gone to, and zooming.

Layout is one class on the screen (wide, medium, single, tiny); what each class shows is in ``run.tcss``.
"""

from __future__ import annotations

from textual.containers import Vertical
from textual.events import DescendantFocus, Resize
from textual.widget import Widget

from tui.screens.run_commands import RunCommands
from tui.widgets.cells import CellWidget

PANES = ("loss", "figures", "samples", "log")
LAYOUTS = ("wide", "medium", "single", "tiny")


def layout_for(width: int, height: int) -> str:
    """The layout of a terminal's size: wide, medium, single or tiny."""
    if width < 60 or height < 18:
        return "tiny"
    if width < 96 or height < 28:
        return "single"
    return "wide" if width >= 136 and height >= 36 else "medium"


class Pane(Vertical, can_focus=True):
    """A framed part of the screen that can be gone to."""


class PaneScreen(RunCommands):
    """A screen of four panes, one of them the current one: alone on a small or zoomed screen."""

    current = "loss"

    def show_all(self) -> None:
        """Hand the state to every widget in sight, after a change of layout."""
        for widget in self.query(CellWidget):
            if in_sight(widget):
                widget.show(self.run_view)

    def on_resize(self, event: Resize) -> None:
        """Another size may need another layout."""
        self._lay_out(event.size.width, event.size.height)

    def _lay_out(self, width: int, height: int) -> None:
        layout = layout_for(width, height)
        for name in LAYOUTS:
            self.set_class(name == layout, f"-{name}")
        self._mark_current()
        self.call_after_refresh(self.show_all)

    def _mark_current(self) -> None:
        for name in PANES:
            self.query_one(f"#{name}").set_class(name == self.current, "-current")
        self.set_class(self.current in ("loss", "figures"), "-left")
        self.set_class(self.current != "log", "-up")

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """The pane with the focus is the one that zooming and small terminals show."""
        if event.widget.id in PANES and event.widget.id != self.current:
            self.current = event.widget.id
            self._mark_current()
            self.call_after_refresh(self.show_all)

    def action_pane(self, number: int) -> None:
        """Go to pane ``number`` (from 1); alone on a small or zoomed screen."""
        self.current = PANES[number - 1]
        self._mark_current()
        self.query_one(f"#{self.current}").focus()
        self.call_after_refresh(self.show_all)

    def action_log(self) -> None:
        """Go to the log; from there, back to the loss."""
        self.action_pane(1 if self.current == "log" else 4)

    def action_zoom(self) -> None:
        """Show the current pane alone, or all again."""
        self.toggle_class("-zoom")
        self.call_after_refresh(self.show_all)

    def action_back(self) -> None:
        """Out of the zoom."""
        if self.has_class("-zoom"):
            self.action_zoom()


def in_sight(widget: Widget) -> bool:
    """Whether a widget and all around it are displayed."""
    return all(node.display for node in widget.ancestors_with_self if isinstance(node, Widget))
