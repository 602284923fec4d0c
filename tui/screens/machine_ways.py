"""Captioning by machine from the workbench: asking for it, following it, and the way to the review."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tui.screens.tidying import Tidying
from tui.widgets.status import StatusLine

if TYPE_CHECKING:
    from tui.captioning import Captioning


class MachineWays(Tidying):
    """The workbench's part that has captions made."""

    def action_machine(self) -> None:
        """Ask which model captions which pictures; while one does, how to go on."""
        from tui.screens.machine import MachineDialog

        place = self.workplace
        if place.captioning is not None and place.captioning.alive:
            self._ask_about_job(place.captioning)
            return
        scopes, word = self._scopes()
        if not scopes[word]:
            self.app.say("There are no pictures to caption")
            return
        self.app.push_screen(MachineDialog(place, scopes), self._machine_begun)

    def _machine_begun(self, started: str | None) -> None:
        if started:
            self.app.say("Captioning has begun; it goes on while you work, A pauses or stops it", 6.0)

    def _ask_about_job(self, captioning: Captioning) -> None:
        from tui.screens.dialogs import Choice, ChoiceDialog

        go = "Go on" if captioning.paused else "Pause after the pictures in progress"
        choices = [
            Choice("pause", "p", go),
            Choice("stop", "s", "Stop; what was made is kept, and it goes on from there next time"),
            Choice("close", "c", "Close this"),
        ]
        detail = "\n".join([captioning.words(), *captioning.remarks()])
        self.app.push_screen(
            ChoiceDialog("Captions by machine", detail, choices), partial(self._job_chosen, captioning)
        )

    def _job_chosen(self, captioning: Captioning, choice: str | None) -> None:
        if choice == "pause":
            captioning.toggle()
        elif choice == "stop":
            captioning.stop()
            self.app.say("Captioning stops")

    def action_review(self) -> None:
        """Look through what machines said of the pictures found, or of those marked."""
        from tui.screens.review import ReviewScreen

        rows, word = self._dataset.listing.scope()
        if not rows:
            self.app.say("There are no pictures to review")
            return
        self.workplace.desk.save_all()
        self.app.push_screen(ReviewScreen(self.workplace, rows, word), self._reviewed)

    def _reviewed(self, result: str | None) -> None:
        if result:
            self.app.say(result)
        self.go_to("dataset")

    def mind_captioning(self) -> None:
        """Show how far the job is; once it is over, say what came of it."""
        captioning = self.workplace.captioning
        if captioning is None:
            return
        alive = captioning.alive
        captioning.poll()
        self.query_one(StatusLine).tell_besides(captioning.words())
        if alive or captioning.told:
            return
        captioning.told = True
        failure = captioning.view.failure
        if failure is not None:
            self.app.show_error(failure, heading="Captioning failed")
        else:
            self.app.say(captioning.result(), 12.0)

    def ask_to_leave(self) -> None:
        """Where only captions are being made, ask whether they go on."""
        captioning = self.workplace.captioning
        if self.workplace.live or captioning is None or not captioning.alive:
            super().ask_to_leave()
            return
        from tui.screens.dialogs import Choice, ChoiceDialog

        choices = [
            Choice("leave", "s", "Stop captioning and leave; what was made is kept"),
            Choice("stay", "c", "Cancel: stay here"),
        ]
        if self.app.detachable:
            choices.insert(0, Choice("detach", "d", "Detach: captioning goes on without a screen"))
        detail = "Pictures are being captioned."
        self.app.push_screen(ChoiceDialog("Leave lorakiln", detail, choices), self._captioning_left)

    def _captioning_left(self, choice: str | None) -> None:
        if choice in ("leave", "detach"):
            self.app.leave(choice)
