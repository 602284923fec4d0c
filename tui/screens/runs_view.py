"""The list of runs on the screen: reading them in a thread, showing, filtering, moving.

The part of :class:`tui.screens.runs.RunsScreen` that changes nothing; what is done to a run is the screen's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.content import Content
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import Input, Static

from engine.text import safe_text
from tui.aside import aside
from tui.keys.key import bindings
from tui.keys.runs import RUNS_KEYS
from tui.run_shelf import RunCard, read_cards, run_folders
from tui.safe import safe
from tui.units import size
from tui.widgets.keyline import KeyLine
from tui.widgets.notice import Notice
from tui.widgets.run_table import CurvePlot, RunTable
from tui.workplace import Workplace

if TYPE_CHECKING:
    from tui.app import KilnApp

WIDE = 120
"""Columns from which the curve stands beside the table."""

AT_ONCE = 8
"""Runs read between two looks at the screen."""

FILES_SHOWN = 6


class RunsView(Screen[str | None]):
    """The list without what is done to a run."""

    app: KilnApp

    CSS_PATH = "runs.tcss"
    BINDINGS = bindings(RUNS_KEYS)
    AUTO_FOCUS = "#runs"

    def __init__(self, workplace: Workplace) -> None:
        super().__init__()
        self.workplace = workplace
        self.cards: list[RunCard] = []
        self.reading = True
        self._marked: tuple[str, ...] = ()
        self._known: dict[Path, RunCard] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="runs")

    def compose(self) -> ComposeResult:
        """Filter, table, and about the run under the cursor its curve and files."""
        yield Input(placeholder="words of a name or state", id="filter", compact=True)
        with Container(id="body"):
            yield RunTable(id="runs")
            with Vertical(id="about", classes="pane"):
                yield CurvePlot()
                yield Static(id="files")
        yield Notice()
        yield KeyLine()

    def on_mount(self) -> None:
        """Read the runs."""
        self.set_class(self.app.size.width < WIDE, "-narrow")
        self._show()
        self.read()

    def on_unmount(self) -> None:
        """Let the thread go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def on_resize(self, event: Resize) -> None:
        """Curve beside the table, or below it."""
        self.set_class(event.size.width < WIDE, "-narrow")

    def places(self) -> list[Path]:
        """The folders that may hold runs: the usual ones, the configuration's, the setup form's."""
        place = self.workplace
        typed = place.session.form.get("runs_dir", "").strip()
        more = [place.config.runs_dir] if place.config is not None else []
        folders = [place.folder / "runs", place.folder / "model", *more, place.folder / (typed or "runs")]
        return list(dict.fromkeys(folders))

    @work(exclusive=True, group="read")
    async def read(self) -> None:
        """Read all runs in a thread, a few at a time."""
        self.reading = True
        cards = read_cards(await aside(self, self._pool, run_folders, self.places()), self._known)
        read: list[RunCard] = []
        while some := await aside(self, self._pool, _some, cards):
            read += some
            if len(read) >= len(self.cards):
                self.cards = list(read)
                self._show()
        self.cards = read
        self.reading = False
        self._show()

    def _show(self) -> None:
        words = self.query_one("#filter", Input).value.casefold().split()
        shown = [card for card in self.cards if all(word in _words(card) for word in words)]
        table = self.query_one(RunTable)
        empty = "Reading the runs..." if self.reading else "No runs yet: esc, then ctrl+n sets one up"
        table.take(shown, frozenset(self._marked), "No run has these words: esc shows all" if words else empty)
        count = f"{len(shown)} of {len(self.cards)}" if words else str(len(shown))
        table.border_title = safe(f"Runs  {count}")
        self._about(table.card)

    @on(RunTable.Moved)
    def _moved(self, event: RunTable.Moved) -> None:
        self._about(event.card)

    def _about(self, card: RunCard | None) -> None:
        about = self.query_one("#about")
        about.border_title = safe(f"Smoothed loss of {card.summary.name}" if card else "", 100)
        self.query_one(CurvePlot).take(card)
        self.query_one("#files", Static).update(_files(card, self.workplace.folder) if card else Content(""))

    @on(Input.Changed)
    def _filtered(self) -> None:
        self._show()

    @on(Input.Submitted)
    def _filter_done(self) -> None:
        self.query_one(RunTable).focus()

    @property
    def card(self) -> RunCard | None:
        """The run that commands mean."""
        return self.query_one(RunTable).card

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Single letters are text while the filter is typed."""
        return action in ("back", "filter") or not isinstance(self.focused, Input)

    def action_move(self, by: int) -> None:
        """Up or down by lines."""
        table = self.query_one(RunTable)
        table.go(table.cursor + by)

    def action_page(self, by: int) -> None:
        """Up or down by a page."""
        self.action_move(by * self.query_one(RunTable).page)

    def action_edge(self, last: int) -> None:
        """To the first or last run."""
        table = self.query_one(RunTable)
        table.go(len(table.cards) if last else 0)

    def action_filter(self) -> None:
        """Type words."""
        self.add_class("-filtering")
        self.query_one("#filter").focus()

    def action_back(self) -> None:
        """Forget the filter, else leave."""
        if not self.has_class("-filtering"):
            self.dismiss(None)
            return
        self.query_one("#filter", Input).value = ""
        self.remove_class("-filtering")
        self.query_one(RunTable).focus()

    def action_refresh(self) -> None:
        """Look again."""
        self.read()


def _some(cards: Iterable[RunCard]) -> list[RunCard]:
    return list(itertools.islice(cards, AT_ONCE))


def _words(card: RunCard) -> str:
    return f"{card.summary.name} {card.summary.state} {card.summary.folder}".casefold()


def _files(card: RunCard, work: Path) -> Content:
    """Folder and LoRA files of a run, the newest first."""
    folder = card.folder.relative_to(work) if card.folder.is_relative_to(work) else card.folder
    lines = [Content.assemble(("Folder  ", "$foreground-muted"), safe_text(folder, 300))]
    for path, count in reversed(card.files[-FILES_SHOWN:]):
        lines.append(
            Content.assemble(("LoRA    ", "$foreground-muted"), safe_text(path.name, 200), f"  {size(count)}")
        )
    hidden = len(card.files) - FILES_SHOWN
    if hidden > 0:
        lines.append(Content.styled(f"        and {hidden} before these", "$foreground-muted"))
    if not card.files:
        lines.append(Content.styled("no LoRA file yet", "$foreground-muted"))
    if card.holder:
        lines.append(Content.styled(f"it is being trained, by the process {card.holder}", "$foreground-muted"))
    return Content("\n").join(lines)
