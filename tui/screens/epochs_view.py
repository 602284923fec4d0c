"""The epochs screen as it is looked at: reading a run and drawing its parts.

The part of :class:`tui.screens.epochs.EpochsScreen` that neither moves nor changes anything. All parts draw from one
:class:`~tui.epochs_shown.Shown`, so the cursor is the same in all of them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import Static

from engine.errors import RunError
from engine.text import safe_text
from tui.aside import aside
from tui.blind import told
from tui.epochs_shown import Around, Shown, gather, lora_names, read_around, told_row
from tui.judged import NOTE_CHARS, Judged, read_judged
from tui.safe import safe
from tui.watched import WatchedRun
from tui.widgets.epoch_grid import EpochGrid
from tui.widgets.epoch_plot import NOT_MEASURED, SIGNALS, TITLES, EpochPlot
from tui.widgets.epoch_table import EpochTable
from tui.widgets.fields import Entry
from tui.widgets.keyline import KeyLine
from tui.widgets.notice import Notice
from tui.workplace import Workplace

if TYPE_CHECKING:
    from tui.app import KilnApp

PARTS = ("curves", "table", "pictures")
WIDE = (120, 32)
"""Columns and lines from which all parts are in sight at once."""

POLL_S = 0.5


class EpochsView(Screen[str | None]):
    """The screen without what is done to an epoch.

    Args:
        workplace: where runs, settings and small pictures are.
        folder: the run's.
    """

    app: KilnApp

    CSS_PATH = "epochs.tcss"
    AUTO_FOCUS = "#curves"

    def __init__(self, workplace: Workplace, folder: Path) -> None:
        super().__init__()
        self.workplace = workplace
        self.folder = folder
        self.run = WatchedRun(workplace, folder)
        self.shown = Shown(folder, folder.name)
        self.judged: Judged | None = None
        """None until they were read, or where they cannot be: then none is changed."""
        self.around: Around | None = None
        self.marked = -1
        self.part = PARTS[0]
        self._seen: object = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="epochs")
        self._judging = ThreadPoolExecutor(1, thread_name_prefix="judged")
        """Reads and writes the opinions alone, so that leaving waits for nothing else."""

    def compose(self) -> ComposeResult:
        """What the run is, the advice, the epoch under the cursor; curves, table, pictures."""
        yield Static(id="head")
        yield Static(id="advice")
        yield Static(id="here")
        with Vertical(id="parts"):
            with Horizontal(id="upper"):
                yield EpochPlot(id="curves")
                yield EpochTable(id="table")
            yield EpochGrid(self.app.pool, lambda: self.workplace.thumbnails, id="pictures")
        note = Entry("", "note", "a note on this epoch: enter keeps it, esc leaves it as it was")
        note.max_length = NOTE_CHARS
        yield note
        yield Notice()
        yield KeyLine()

    def on_mount(self) -> None:
        """Lay out, read, and look for news from then on."""
        self.lay_out(self.app.size.width, self.app.size.height)
        self.draw()
        self.read()
        self.set_interval(POLL_S, self.poll)

    def on_unmount(self) -> None:
        """Finish what is being written, let the threads go."""
        self.run.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._judging.shutdown(wait=True)

    def on_resize(self, event: Resize) -> None:
        """All parts at once, or one at a time."""
        self.lay_out(event.size.width, event.size.height)

    @property
    def ready(self) -> bool:
        """Whether all that lies around the run was read, and its events."""
        return self.around is not None and self.shown.version > 0

    @work(exclusive=True, group="read")
    async def read(self) -> None:
        """Read opinions, files and the dataset's captions, in a thread."""
        try:
            self.judged = await aside(self, self._judging, read_judged, self.folder)
        except OSError as err:
            where = f"{safe_text(self.folder)}: {err.strerror}"
            self.app.show_error(RunError("The opinions on this run cannot be read", where, "Nothing is changed."))
        self.around = await aside(self, self._pool, read_around, self.folder)
        self._seen = None
        self.poll()

    def poll(self) -> None:
        """Show what the run has told since."""
        self.run.poll()
        view = self.run.view
        newest = view.measured[-1].step if view.measured else -1
        seen = (
            id(view), len(view.measured), newest, len(view.samples), len(view.checkpoints), len(view.scores),
            len(view.near_copies), view.state, view.epochs,
        )  # fmt: skip
        if self.around is not None and seen != self._seen and (self.run.read or not view.live):
            self._seen = seen
            self._look_at_files()

    @work(exclusive=True, group="files")
    async def _look_at_files(self) -> None:
        names = await aside(self, self._pool, lora_names, self.folder)
        self.around = replace(self.around or Around(), files=names)
        self.renew()

    def renew(self) -> None:
        """Draw the run as it is now."""
        before = self.shown if self.shown.version else None
        self.shown = gather(self.run.view, self.folder, self.judged or Judged(), self.around or Around(), before)
        self.refresh_bindings()
        self.draw()

    def draw(self) -> None:
        """Draw everything."""
        shown = self.shown
        self.query_one("#head", Static).update(_head(shown))
        self.query_one("#advice", Static).update(_advice(shown) if shown.version else safe("Reading the run..."))
        self.draw_cursor()

    def draw_cursor(self) -> None:
        """Draw what depends on where the cursor is."""
        shown = self.shown
        self.query_one("#here", Static).update(_here(shown))
        plot, table, grid = self.query_one(EpochPlot), self.query_one(EpochTable), self.query_one(EpochGrid)
        plot.border_title = safe(TITLES[shown.signal])
        plot.border_subtitle = safe(f"c: {SIGNALS[(shown.signal + 1) % len(SIGNALS)]}")
        table.border_title = safe(f"Epochs  {len(shown.rows)}")
        grid.border_title = safe("Pictures, strength by epoch" if shown.by_strength else "Pictures, prompt by epoch")
        grid.border_subtitle = safe("t: training pictures" if shown.own else "")
        plot.take(shown)
        table.take(shown, self.marked)
        grid.take(shown)

    def lay_out(self, width: int, height: int) -> None:
        """All parts at once, or the current one alone."""
        self.set_class(width < WIDE[0] or height < WIDE[1], "-single")
        self.set_class(width < 60 or height < 14, "-tiny")
        for part in PARTS:
            self.set_class(part == self.part, f"-at-{part}")


def _head(shown: Shown) -> Content:
    saved = sum(bool(shown.files_of(row)) for row in shown.rows)
    last = max(shown.epochs, default=0)
    parts = [shown.state, f"epoch {last} of {shown.planned}" if shown.planned else ""]
    parts += [f"{saved} saved", f"{len(shown.grid)} pictures"] if shown.version else []
    told = ", ".join(part for part in parts if part)
    return Content.assemble((safe_text(shown.name, 80), "bold"), "  ", (told, "$foreground-muted"))


def _here(shown: Shown) -> Content:
    """The epoch under the cursor, and the note on it."""
    if shown.row is None:
        return Content("")
    note = f'  "{safe_text(shown.row.opinion.note, 300)}"' if shown.row.opinion.note else ""
    return Content.assemble((told_row(shown, shown.row), "bold"), safe_text(note, 400))


def _advice(shown: Shown) -> Content:
    """The advisor's word, what to change next time, and what the blind comparisons say."""
    if not shown.is_measured:
        words = Content.styled(NOT_MEASURED, "$foreground-muted")
    else:
        first, _, rest = shown.advice.text.partition(". ")
        words = Content.assemble((first + ("." if rest else ""), "bold $text-accent"), f" {rest}")
    if shown.advice.changes and shown.is_measured:
        words = Content("\n").join([words, Content.assemble(("Next time: ", "bold"), " ".join(shown.advice.changes))])
    blind = told(shown.judged)
    return Content("\n").join([words, Content.assemble(("Blind: ", "bold"), blind)]) if blind else words
