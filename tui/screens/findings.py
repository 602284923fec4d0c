"""What is wrong with the dataset, and what can be done at once: mend, leave out, run a program of the user's.

Nothing of the user's is changed without a question, and everything can be taken back. Returns the path of the picture
to go to, or None.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from textual import on, work
from textual.widgets import OptionList

from engine.dataset.mend import keep_beside, readings
from engine.dataset.problems import Problem
from engine.errors import EngineError
from engine.text import safe_text
from tui.aside import aside
from tui.findings import crops_of
from tui.mending import SHIPPED, Mender, question
from tui.outside import run_on_copy
from tui.places import is_shipped
from tui.screens.dialogs import Choice, ChoiceDialog
from tui.screens.findings_view import FindingsView
from tui.screens.pick import Offer, PickDialog
from tui.widgets.notice import Notice

NO_PICTURE = "That is no picture of the list"

ENDINGS = {"upscale": "upscaled", "background": "cut-out"}
"""What the names of made pictures end in."""


class FindingsScreen(FindingsView):
    """The list and what can be done about its lines."""

    _program: threading.Event | None = None
    """Set to end the user's program that runs; None while none does."""

    @property
    def mender(self) -> Mender:
        """Mends, and knows what was done."""
        return self.workplace.mender

    @work(group="recall")
    async def on_mount(self) -> None:  # type: ignore[override]  # the base's is called as well
        """Ask what an earlier workstation left to take back."""
        await aside(self, None, self.mender.recall)
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only what there is something to do for."""
        if action == "undo":
            return self.mender.undoable
        if action == "cancel":
            return self._program is not None
        return True

    @on(OptionList.OptionSelected)
    def action_open(self) -> None:
        """Go to the picture."""
        path = self._picture()
        if path is None:
            self._say(NO_PICTURE)
        else:
            self.dismiss(str(path))

    def action_fix(self) -> None:
        """Mend what is wrong with one picture."""
        line = self.line
        if line is not None and line.problem is not None:
            self._ask([line.problem])
        elif line is not None:
            self._say("F mends all pictures of this finding, f one of them")

    def action_fix_all(self) -> None:
        """Mend all pictures of a finding."""
        if self.line is not None:
            self._ask(list(self.line.finding.problems))

    def action_exclude(self) -> None:
        """Leave the picture out of training, or take it back in."""
        path = self._picture()
        if path is None:
            self._say(NO_PICTURE)
        else:
            self._do(lambda: self.mender.exclude(path))

    def action_undo(self) -> None:
        """Take the last mending back."""
        self._do(lambda: f"Taken back: {self.mender.undo() or 'nothing'}")

    def action_cancel(self) -> None:
        """End the program that runs."""
        if self._program is not None:
            self._program.set()

    def _picture(self) -> Path | None:
        """The picture that the line is about, or whose caption it is about; None for none of the list."""
        path = self.line.path if self.line is not None else None
        rows = self.workplace.catalog.rows
        return next((row.path for row in rows if path is not None and path in (row.path, row.caption_path)), None)

    def _ask(self, problems: list[Problem]) -> None:
        problems = [each for each in problems if each.fix and each.file is not None]
        if not problems:
            self._say("This one is for you to put right")
        elif problems[0].fix == "encoding":
            self._ask_encoding(problems)
        else:
            title, detail, answer = question(problems)
            choices = [Choice("yes", "y", answer), Choice("no", "n", "Change nothing")]
            self.app.push_screen(ChoiceDialog(title, detail, choices), partial(self._answered, problems))

    def _answered(self, problems: list[Problem], answer: str | None) -> None:
        if answer == "yes":
            crops = crops_of(self.found) if self.found is not None else {}
            self._do(lambda: self.mender.mend(problems, crops=crops))

    def _ask_encoding(self, problems: list[Problem]) -> None:
        """The texts that the first caption could be, to choose from: a person sees which is right."""
        path = problems[0].file
        found = self.app.attempt(lambda: readings(path)) if path is not None else None
        if not found:
            self._say("No known encoding fits it")
            return
        offers = [Offer(name, safe_text(" ".join(text.split()), 120), name) for name, text in found]
        title = f"How should {safe_text(problems[0].path, 60)} read?"
        if len(problems) > 1:
            title = f"{len(problems)} captions; how should the first of them read?"
        foot = "enter writes it as UTF-8 and keeps the original, esc changes nothing"
        dialog = PickDialog(title, offers, foot=foot)
        self.app.push_screen(dialog, lambda name: self._read_as(problems, name))

    def _read_as(self, problems: list[Problem], encoding: str | None) -> None:
        if encoding:
            self._do(lambda: self.mender.mend(problems, encoding))

    @work(exclusive=True, group="mend")
    async def _do(self, job: Callable[[], str]) -> None:
        """Do something in a thread, say what was done, and check again."""
        self.busy = "Mending"
        try:
            told = await aside(self, self._pool, job)
        except EngineError as err:
            self.app.show_error(err)
        else:
            self._say(told)
        finally:
            self.busy = ""
        self.refresh_bindings()
        self.check()

    @work(exclusive=True, group="outside")
    async def action_outside(self, name: str) -> None:
        """Run the user's program on a copy of the picture, and ask whether to keep what it made."""
        path = self._picture()
        command = getattr(self.workplace.settings.commands, name)
        if path is None:
            self._say(NO_PICTURE)
        elif is_shipped(path):
            self._say(f"{SHIPPED[0]}: {SHIPPED[1]}")
        elif not command:
            self._say(f'Name your program in settings.toml: [commands] {name} = ["program", "{{in}}", "{{out}}"]')
        elif self._program is None:
            self._program = threading.Event()
            self.refresh_bindings()
            try:
                await aside(self, None, self._run, name, command, path, self._program)
            except EngineError as err:
                self.app.show_error(err)
            finally:
                self._program, self.busy = None, ""
                self.refresh_bindings()

    def _run(self, name: str, command: tuple[str, ...], path: Path, cancel: threading.Event) -> None:
        """In a thread: the program, then the question; what it made is there until the question is answered."""

        def tell(words: str) -> None:
            self.busy = f"{safe_text(command[0], 40)} on {safe_text(path.name, 60)}: {words}  (c ends it)"
            if self._left.is_set():
                cancel.set()

        with run_on_copy(command, path, cancel, tell) as made:
            before, after = self.workplace.decoder.probe(path), self.workplace.decoder.probe(made)
            self.workplace.decoder.verify(made)
            sizes = f"{before.width} x {before.height} became {after.width} x {after.height}"
            answer = self._answer_of(safe_text(path.name, 80), sizes)
            if answer in ("instead", "beside"):
                extensions = self.workplace.catalog.dataset.captions.extensions  # type: ignore[union-attr]
                make = partial(keep_beside, path, made, ENDINGS[name], extensions)
                told = self.mender.add(make, exclude=path if answer == "instead" else None)
                self.app.call_later(self._added, told)

    def _answer_of(self, name: str, sizes: str) -> str:
        """Ask on the screen, wait here; empty where it was left without an answer."""
        answered, answers = threading.Event(), [""]

        def take(answer: str | None) -> None:
            answers[0] = answer or ""
            answered.set()

        choices = [
            Choice("instead", "i", "Keep it beside, leave the original out of training"),
            Choice("beside", "b", "Keep both in training"),
            Choice("no", "n", "Throw it away"),
        ]
        self.app.call_later(self.app.push_screen, ChoiceDialog(f"{name} is done", sizes, choices), take)
        while not answered.wait(0.2):
            if self._left.is_set():
                break
        return answers[0]

    def _added(self, told: str) -> None:
        self._say(told)
        self.check()

    def _say(self, text: str) -> None:
        self.query_one(Notice).say(text)
