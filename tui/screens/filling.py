"""Puts the panes into the workbench's places: after the first frame, so that the frame waits for none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.widget import Widget

from tui.safe import safe
from tui.screens.feed import Feed
from tui.screens.panes import Slot
from tui.widgets.caption import CaptionPane
from tui.widgets.dataset import DatasetPane
from tui.widgets.log import LogPane
from tui.widgets.samples import SamplesPane
from tui.widgets.training import TrainingPane

if TYPE_CHECKING:
    from tui.screens.workbench import Workbench


async def fill(screen: Workbench) -> Feed:
    """Mount every pane into its slot; what comes back keeps them up to date."""
    place = screen.workplace
    panes: dict[str, Widget] = {
        "dataset": DatasetPane(place.catalog, place.session),
        "caption": CaptionPane(
            place.catalog, place.session, place.thumbnails, place.desk, place.settings.editing, id="caption"
        ),
        "training": TrainingPane(id="training"),
        "samples": SamplesPane(screen.app.pool, screen.run_root, id="samples"),
        "log": LogPane(id="log"),
    }
    panes["samples"].border_title = safe("4 Samples")
    panes["log"].border_title = safe("5 Log")
    for name, pane in panes.items():
        await screen.query_one(f"#slot-{name}", Slot).fill(pane)
    return Feed(screen)
