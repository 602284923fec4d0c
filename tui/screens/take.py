"""Taking an epoch along, on the screen: name and folder of the copy, then how it is used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Input, Static

from engine.errors import RunError
from engine.text import safe_text
from tui.keys.dialogs import DIALOG_KEYS
from tui.keys.epochs import TAKE_KEYS, USAGE_KEYS
from tui.keys.key import bindings
from tui.safe import safe
from tui.screens.dialogs import Dialog
from tui.screens.pick import Offer, PickDialog
from tui.taking import Target, Use, checked_name
from tui.widgets.fields import Entry, PathSuggester

if TYPE_CHECKING:
    from tui.habits import Habits


class TakeDialog(Dialog):
    """Asks what the copy is called and where it goes; returns name and folder with a line feed between."""

    BINDINGS = bindings(DIALOG_KEYS + TAKE_KEYS)

    def __init__(self, what: str, name: str, folder: str, targets: Sequence[Target], work: Path) -> None:
        super().__init__()
        self._what, self._file, self._folder = what, name, folder
        self._targets = targets
        self._work = work

    def compose(self) -> ComposeResult:
        """Two fields, what was found, what the keys do."""
        with Vertical(classes="box -wide"):
            yield Static(safe(f"Use {self._what}"), classes="title")
            yield Static(safe("Name of the copy"))
            yield Entry(self._file, "file")
            yield Static(safe("Folder; empty leaves the file where it is and only says how to use it"))
            yield Entry(self._folder, "folder", "ComfyUI/models/loras", PathSuggester(self._work))
            yield Static(safe(self._found()), id="told", classes="detail")
            yield Static(
                safe("enter copies, right arrow completes, F4 lists folders found, esc goes back"), classes="foot"
            )

    def _found(self) -> str:
        if not self._targets:
            return "No folder of ComfyUI or Forge was found: type it."
        return f"Found: {', '.join(dict.fromkeys(target.program for target in self._targets))} (F4)"

    def on_mount(self) -> None:
        """The folder is what most likely is still to be said."""
        self.query_one("#field-file" if self._folder else "#field-folder").focus()

    @work(exclusive=True)
    async def action_list(self) -> None:
        """Choose one of the folders found."""
        offers = [Offer(str(target.folder), target.program, str(target.folder)) for target in self._targets]
        if offers:
            chosen = await self.app.push_screen_wait(PickDialog("Folders of programs that draw", offers))
            if chosen is not None:
                self.query_one("#field-folder", Input).value = chosen

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_keep()

    def action_keep(self) -> None:
        """Return what is typed, where it can be used; say why where it cannot."""
        name, folder = (self.query_one(f"#field-{field}", Input).value.strip() for field in ("file", "folder"))
        try:
            name = checked_name(name)
            if folder and not (self._work / Path(folder).expanduser()).is_dir():
                raise RunError("There is no such folder", folder, "")
        except (RunError, RuntimeError) as err:
            self.query_one("#told", Static).update(safe(f"! {err}".replace("\n", ": "), 400, style="$text-error"))
            return
        self.dismiss(f"{name}\n{folder}")


class UsageDialog(Dialog):
    """How the file is used, program by program."""

    BINDINGS = bindings(DIALOG_KEYS + USAGE_KEYS)

    def __init__(self, what: str, path: Path, copied: bool, use: Use) -> None:
        super().__init__()
        self._what, self._path, self._copied, self._use = what, path, copied, use

    def compose(self) -> ComposeResult:
        """Where it is, the ways to use it, what the keys do."""
        done = f"{self._what} was copied" if self._copied else f"{self._what} stays where it is"
        with Vertical(classes="box -wide"):
            yield Static(safe(done), classes="title")
            yield Static(safe(safe_text(self._path, 400)), classes="detail")
            with VerticalScroll(classes="text"):
                yield Static(safe(self._use.text, 6000, newlines=True))
            yield Static(safe("y copies all, f Forge's line, d the code, p the path; esc closes"), classes="foot")

    def on_mount(self) -> None:
        """Long texts scroll by keys."""
        self.query_one(VerticalScroll).focus()

    def action_copy(self, what: str) -> None:
        """Copy a part to the clipboard."""
        parts = {
            "text": (self._use.text, "all of it"),
            "forge": (self._use.snippet("Forge"), "Forge's line"),
            "diffusers": (self._use.snippet("diffusers"), "the code"),
            "path": (str(self._path), "the path"),
        }
        cast("Habits", self.app).copy_words(*parts[what])
