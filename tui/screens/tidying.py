"""Making room on a full disk: the files that a run names, marked by the user, removed by the run after a question.

The run removes them, not the screen: it knows what it needs by then, and removes nothing that it did not name.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine.commands import Remove
from engine.events import DiskTight
from tui.disk import file_words
from tui.keys.dialogs import DIALOG_KEYS, REMOVE_KEYS
from tui.keys.key import bindings
from tui.safe import safe
from tui.screens.batching import Batching
from tui.screens.dialogs import Choice, ChoiceDialog, Dialog
from tui.units import size
from tui.widgets.marked_list import MarkedList


class RemoveDialog(Dialog):
    """The files that could go, to be marked; returns the numbers of those marked, with spaces between."""

    BINDINGS = bindings(DIALOG_KEYS + REMOVE_KEYS)

    def __init__(self, disk: DiskTight) -> None:
        super().__init__()
        self._disk = disk
        self._marked: set[int] = set()

    def compose(self) -> ComposeResult:
        """Title, the files, what is marked, what the keys do."""
        with Vertical(classes="box -wide"):
            yield Static(safe("Files that nobody needs to go on, the oldest first"), classes="title")
            yield MarkedList(*(Option(self._line(number)) for number in self._numbers), markup=False)
            yield Static(self._sum(), id="marked", classes="detail")
            yield Static(safe("space marks, a all, enter goes on to a question, esc removes nothing"), classes="foot")

    def on_mount(self) -> None:
        """Arrows work at once."""
        self.query_one(OptionList).focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Enter goes on with what is marked, a click marks: nothing marked is nothing to ask."""
        event.stop()
        if self._marked:
            self.dismiss(" ".join(map(str, sorted(self._marked))))
        else:
            self.action_mark()

    def action_mark(self) -> None:
        """Mark the file under the cursor, or take its mark back."""
        number = self.query_one(OptionList).highlighted
        if number is not None:
            self._show(self._marked ^ {number})

    def action_mark_all(self) -> None:
        """Mark all files, or none."""
        every = set(self._numbers)
        self._show(set() if self._marked == every else every)

    @property
    def _numbers(self) -> range:
        return range(len(self._disk.removable))

    def _show(self, marked: set[int]) -> None:
        changed, self._marked = self._marked ^ marked, marked
        for number in changed:
            self.query_one(OptionList).replace_option_prompt_at_index(number, self._line(number))
        self.query_one("#marked", Static).update(self._sum())

    def _line(self, number: int) -> Content:
        mark = "x" if number in self._marked else " "
        return safe(f"[{mark}] {size(self._disk.sizes[number]):>9}  {file_words(self._disk.removable[number])}", 400)

    def _sum(self) -> Content:
        total = sum(self._disk.sizes[number] for number in self._marked)
        return safe(f"{len(self._marked)} of {len(self._numbers)} marked, {size(total)}")


class Tidying(Batching):
    """The workbench's part that makes room."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only where the run named files, and takes commands from here."""
        if action == "tidy":
            disk = self.run_view.disk
            return bool(self.run_view.live and self.workplace.live and disk is not None and disk.removable)
        return super().check_action(action, parameters)

    def action_tidy(self) -> None:
        """Choose what is removed."""
        if (disk := self.run_view.disk) is not None:
            self.app.push_screen(RemoveDialog(disk), lambda marked: self._ask(disk, marked))

    def _ask(self, disk: DiskTight, marked: str | None) -> None:
        if not marked:
            return
        numbers = [int(number) for number in marked.split()]
        paths = tuple(disk.removable[number] for number in numbers)
        detail = _names(paths)
        freed = size(sum(disk.sizes[number] for number in numbers))
        choices = [
            Choice("remove", "r", f"Remove {len(paths)}, {freed}: they cannot be had back"),
            Choice("keep", "k", "Keep everything"),
        ]

        def chosen(choice: str | None) -> None:
            if choice == "remove":
                self.send(Remove(paths), f"Removing {len(paths)}")

        self.app.push_screen(ChoiceDialog("Remove these files?", detail, choices), chosen)


def _names(paths: Sequence[str], most: int = 8) -> str:
    shown = [file_words(path) for path in paths[:most]]
    return "\n".join(shown + ([f"and {len(paths) - most} more"] if len(paths) > most else []))
