"""The base of screens with two large pictures: side by side, or one place for both."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from engine.events import SampleSaved
from engine.text import safe_text
from tui.places import sample_in
from tui.safe import safe
from tui.widgets.keyline import KeyLine
from tui.widgets.notice import Notice
from tui.widgets.preview import Preview
from tui.workplace import Workplace

if TYPE_CHECKING:
    from tui.app import KilnApp


class TwoPictures(Screen[str | None]):
    """A head line, two pictures with a line above each, the prompt, the keys."""

    app: KilnApp

    CSS_PATH = "epochs.tcss"

    def __init__(self, workplace: Workplace, folder: Path) -> None:
        super().__init__()
        self._workplace = workplace
        self._folder = folder

    def compose(self) -> ComposeResult:
        """Both places; what is in them is said by :meth:`put`."""
        yield Static(id="head")
        with Horizontal(id="both"):
            for number in range(2):
                with Vertical(id=f"side-{number}", classes="side"):
                    yield Static(id=f"name-{number}", classes="name")
                    yield Preview(self._workplace.thumbnails, id=f"picture-{number}", number=number)
        yield Static(id="prompt")
        yield Notice()
        yield KeyLine()

    def put(self, number: int, sample: SampleSaved | None, name: str) -> None:
        """Show a picture in place 0 or 1, and what is said above it."""
        where = None if sample is None else sample_in(self._folder, sample.path)
        self.put_file(number, where, name, None if sample is None else (sample.step, sample.seed))

    def put_file(self, number: int, path: Path | None, name: str, mark: Hashable = None) -> None:
        """The same with a file's picture; ``mark`` is another one where the file is."""
        self.query_one(f"#picture-{number}", Preview).show_picture(path, mark)
        self.query_one(f"#name-{number}", Static).update(safe(name, 200))

    def tell(self, head: str, prompt: str, kind: str = "") -> None:
        """The lines above and below."""
        self.query_one("#head", Static).update(safe(head, 300))
        self.query_one("#prompt", Static).update(_prompt(prompt, kind))


def _prompt(prompt: str, kind: str) -> Content:
    """A prompt, and what it is to show."""
    return Content.assemble((f"{kind}: " if kind else "", "$foreground-muted"), (safe_text(prompt, 600), "italic"))
