"""The panes of the workbench: which are in sight at which size, which one is gone to, and zooming.

Layout is one class on the screen (wide, medium, single, tiny) and one for the current pane; what each shows is in
``workbench.tcss``. Slots stand from the first frame; the panes themselves are mounted into them a moment later.
"""

from __future__ import annotations

from typing import Self

from textual.containers import Vertical
from textual.events import DescendantFocus, Resize
from textual.widget import Widget

from tui.safe import safe
from tui.screens.jump import PLACE
from tui.screens.run_commands import RunCommands

PANES = ("dataset", "caption", "training", "samples", "log")
TITLES = ("Dataset", "Caption", "Training", "Samples", "Log")
LAYOUTS = ("wide", "medium", "single", "tiny")

RUN_PANES = frozenset({"training", "samples", "log"})
"""Panes of the column that shows the run."""


def layout_for(width: int, height: int) -> str:
    """The layout of a terminal's size: wide, medium, single or tiny."""
    if width < 60 or height < 18:
        return "tiny"
    if width < 96 or height < 28:
        return "single"
    return "wide" if width >= 136 and height >= 36 else "medium"


class Slot(Vertical):
    """A pane's place: an empty frame until the pane is mounted into it."""

    def __init__(self, pane: str, title: str) -> None:
        super().__init__(name=title, id=f"slot-{pane}", classes=f"-empty {PLACE}")
        self._pane = pane
        self.border_title = safe(title)

    def focus(self, scroll_visible: bool = True) -> Self:
        """Going to the place is going to its pane, hidden or not."""
        screen = self.screen
        if isinstance(screen, PaneScreen):
            screen.go_to(self._pane)
        return self

    async def fill(self, pane: Widget) -> None:
        """Put the pane there."""
        pane.add_class("pane")
        self.remove_class("-empty")
        await self.mount(pane)


class PaneScreen(RunCommands):
    """A screen of panes, one of them the current one: alone on a small or zoomed screen."""

    _going = False
    """On the way to a pane: what has the focus meanwhile, where the pane that is left was hidden, does not count."""

    @property
    def current(self) -> str:
        """The pane that was gone to last."""
        pane = self.workplace.session.pane
        return pane if pane in PANES else PANES[0]

    def show_all(self) -> None:
        """Hand the state to every widget in sight, after a change of layout."""
        raise NotImplementedError

    def on_resize(self, event: Resize) -> None:
        """Another size may need another layout."""
        self.lay_out(event.size.width, event.size.height)

    def lay_out(self, width: int, height: int) -> None:
        """Choose the layout for a size."""
        layout = layout_for(width, height)
        if self.has_class("-tiny") and layout != "tiny":
            self.call_after_refresh(self.go_to, self.current)  # what was hidden has lost the focus
        for name in LAYOUTS:
            self.set_class(name == layout, f"-{name}")
        self.set_class(self.workplace.session.zoomed, "-zoom")
        self._mark_current()

    def _mark_current(self) -> None:
        current = self.current
        for name in PANES:
            self.query_one(f"#slot-{name}").set_class(name == current, "-current")
        self.set_class(current in RUN_PANES, "-at-run")
        self.call_after_refresh(self.show_all)

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """The pane with the focus is the one that zooming and small terminals show."""
        if self.app.leaving:  # panes that are taken down hand the focus on
            return
        pane = pane_of(event.widget)
        stale = self._going or event.widget is not self.focused
        if pane and pane != self.current and not stale and not self.has_class("-tiny"):
            self.workplace.session.pane = pane
            self._mark_current()

    def go_to(self, pane: str) -> None:
        """Make ``pane`` the current one and give it the focus."""
        self.workplace.session.pane = pane
        self._going = True
        self._mark_current()
        # A pane that was hidden cannot take the focus before it is laid out.
        self.call_after_refresh(self._arrive, pane)

    def _arrive(self, pane: str, again: int = 3) -> None:
        if pane != self.current:  # another pane was asked for meanwhile: that one is on its way
            return
        self._going = False
        panes = self.query_one(f"#slot-{pane}").children
        for child in panes:
            child.focus()
        if again and panes:
            self.call_after_refresh(self._make_sure, pane, again - 1)

    def _make_sure(self, pane: str, again: int) -> None:
        """On a busy machine the pane may have been asked before it was laid out: nothing has the focus then."""
        if self.focused is None and self.app.app_focus:
            self._arrive(pane, again)

    def set_focus(self, widget: Widget | None, scroll_visible: bool = True, from_app_focus: bool = False) -> None:
        """What was hidden and lets the focus go late does not take it from the pane that was gone to since."""
        held = self.focused
        late = widget is None and self.app.app_focus and not self._going
        if late and held is not None and pane_of(held) == self.current and in_sight(held):
            return
        super().set_focus(widget, scroll_visible, from_app_focus)

    def action_pane(self, number: int) -> None:
        """Go to pane ``number`` (from 1); alone on a small or zoomed screen."""
        self.go_to(PANES[number - 1])

    def action_log(self) -> None:
        """Go to the log; from there, back to the training."""
        self.go_to("training" if self.current == "log" else "log")

    def action_zoom(self) -> None:
        """Show the current pane alone, or all again."""
        self.workplace.session.zoomed = not self.workplace.session.zoomed
        self.set_class(self.workplace.session.zoomed, "-zoom")
        self.call_after_refresh(self.show_all)

    def action_back(self) -> None:
        """Out of the zoom."""
        if self.has_class("-zoom"):
            self.action_zoom()


def pane_of(widget: Widget) -> str:
    """The pane that ``widget`` is in; empty for none."""
    for node in widget.ancestors_with_self:
        if isinstance(node, Slot):
            return (node.id or "").removeprefix("slot-")
    return ""


def in_sight(widget: Widget) -> bool:
    """Whether a widget and all around it are displayed."""
    return all(node.display for node in widget.ancestors_with_self if isinstance(node, Widget))
