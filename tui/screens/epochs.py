"""A run's epochs: how they were measured, what they draw, what the user thinks of them, and which is taken along.

Opened from the workbench for its run and from the list of runs for any, live or past. Stars, notes and verdicts are
written at once, by a thread, into the run's folder (:mod:`tui.judged`).
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from textual import on, work
from textual.widgets import Input

from engine.commands import Keep
from engine.errors import EngineError
from tui.aside import aside
from tui.blind import candidates, pairings
from tui.epochs_shown import rejudged
from tui.judged import MOST_STARS, QUESTIONS, Judged, Opinion, write_judged
from tui.screens.epochs_taking import EpochsTaking
from tui.widgets.epoch_grid import OwnChosen
from tui.widgets.preview import pictures_are_off


class EpochsScreen(EpochsTaking):
    """The screen and all its keys do."""

    _protected: tuple[int, ...] = ()
    """Epochs that the live run was told to keep last."""

    def judge(self, judged: Judged) -> None:
        """Take other opinions, draw them and keep them: the one way that any of them changes."""
        self.judged = judged
        self.shown = rejudged(self.shown, judged)
        self.draw()
        self._keep(judged)
        self._protect(judged)

    def renew(self) -> None:
        """Draw the run as it is now; one that is live is told of the stars it had before."""
        super().renew()
        if self.judged is not None:
            self._protect(self.judged)

    def _protect(self, judged: Judged) -> None:
        """Have a live run keep the files of epochs with stars, and of the one taken along."""
        kept = tuple(sorted({epoch for epoch, opinion in judged.epochs.items() if opinion.stars} | {judged.chosen}))
        kept = tuple(epoch for epoch in kept if epoch)
        if self.run.live and kept != self._protected:
            self._protected = kept
            self.run.submit(Keep(kept))

    @work(group="keep")
    async def _keep(self, judged: Judged) -> None:
        def write() -> None:
            if judged is self.judged:  # of quick changes only the last is written
                write_judged(self.folder, judged)

        try:
            await aside(self, self._judging, write)
        except EngineError as err:
            self.app.show_error(err, heading="What you think of it is not kept")

    def _opinion(self) -> Opinion | None:
        """The opinion on the epoch under the cursor; None, and said so, where none can be had."""
        if self.judged is None:
            self.app.say("What you thought of it before is not read yet")
        elif self.shown.row is None:
            self.app.say("There is no epoch yet")
        else:
            return self.judged.of(self.shown.epoch)
        return None

    def _change(self, **changes: object) -> None:
        if self.judged is not None:
            self.judge(self.judged.with_opinion(self.shown.epoch, **changes))

    def action_stars(self, count: int) -> None:
        """Give so many stars."""
        if self._opinion() is not None:
            self._change(stars=count)

    def action_more(self, by: int) -> None:
        """One star more or less."""
        if (opinion := self._opinion()) is not None:
            self._change(stars=max(0, min(MOST_STARS, opinion.stars + by)))

    def action_note(self) -> None:
        """Type a note."""
        if (opinion := self._opinion()) is not None:
            field = self.query_one("#field-note", Input)
            field.value = opinion.note
            self.add_class("-noting")
            field.focus()
            field.cursor_position = len(field.value)

    @on(Input.Submitted, "#field-note")
    def _noted(self, event: Input.Submitted) -> None:
        self._leave_note()
        self._change(note=event.value.strip())

    def _leave_note(self) -> None:
        self.remove_class("-noting")
        self.go_to(self.part)

    @work(exclusive=True, group="ask")
    async def action_form(self) -> None:
        """Answer the form's questions."""
        from tui.screens.verdict import VerdictDialog

        if (opinion := self._opinion()) is None:
            return
        epoch = self.shown.epoch
        answers = await self.app.push_screen_wait(VerdictDialog(epoch, opinion))
        if answers is not None and self.judged is not None:
            given = dict(zip(QUESTIONS, answers.split(","), strict=True))
            self.judge(self.judged.with_opinion(epoch, **given))

    def action_mark(self) -> None:
        """Mark the epoch, or take the mark back."""
        self.marked = -1 if self.marked == self.shown.epoch else self.shown.epoch
        self.move_to(self.shown)
        self.app.say(f"Marked epoch {self.marked}: enter on another shows both" if self.marked >= 0 else "No mark")

    def action_compare(self) -> None:
        """Show two epochs: the marked one, else the advised, else the one before; and this."""
        self._pair()

    @on(OwnChosen)
    def _own_chosen(self, event: OwnChosen) -> None:
        """Show a picture of the dataset beside this epoch's."""
        self.shown = replace(self.shown, prompt=event.prompt)
        self._pair(event.place)

    def _pair(self, own: int = -1) -> None:
        from tui.screens.epoch_pair import PairScreen

        if pictures_are_off(self.app):
            return
        shown = replace(self.shown, by_strength=False)
        drawn = shown.drawn
        here = max((epoch for epoch in drawn if epoch <= shown.epoch), default=drawn[0] if drawn else -1)
        others = [epoch for epoch in (self.marked, shown.advice.best) if epoch in drawn and epoch != here]
        others += [epoch for epoch in reversed(drawn) if epoch < here] + [epoch for epoch in drawn if epoch > here]
        if not drawn or not (others or shown.own):
            self.app.say("Two epochs with pictures are needed" if drawn else "There is no picture yet")
            return
        own = own if others else max(own, 0)
        self.app.push_screen(PairScreen(self.workplace, shown, [*others, here][0], here, own), self._compared)

    def _compared(self, came: str | None) -> None:
        if came:
            epoch, prompt = came.split()
            self.move_to(replace(self.shown, prompt=int(prompt)).at_epoch(int(epoch)))

    def action_blind(self) -> None:
        """Compare pictures without knowing their epochs."""
        from tui.screens.blind import BlindScreen

        if pictures_are_off(self.app) or self._opinion() is None or self.judged is None:
            return
        saved = [row.epoch for row in self.shown.rows if self.shown.files_of(row)]
        epochs = candidates(saved, self.shown.grid, self.shown.advice)
        if not pairings(self.shown.grid, epochs, Random(0)):
            self.app.say("Two saved epochs with pictures of one prompt are needed")
            return
        self.app.push_screen(BlindScreen(self.workplace, self.shown, epochs, self.judged, self.judge, Random()))

    def action_copy(self) -> None:
        """The path of this epoch's file, or of the run's folder."""
        row = self.shown.row
        files = self.shown.files_of(row) if row is not None else []
        path = files[0] if files else self.folder
        self.app.copy_words(str(path), f"the path of {path.name}")

    def action_back(self) -> None:
        """Out of the note, out of the zoom, else leave."""
        if self.has_class("-noting"):
            self._leave_note()
        elif self.has_class("-zoom"):
            self.action_zoom()
        else:
            self.dismiss(None)
