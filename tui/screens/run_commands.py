"""What the workbench asks of the run: every action here ends in a command on the queue, a new run, or in leaving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.screen import Screen

from engine.commands import (
    CancelStop,
    Command,
    Pause,
    Resume,
    SampleNow,
    SaveNow,
    StopAfterEpoch,
    StopAtEpoch,
    StopNow,
)
from engine.errors import EngineError
from engine.files import next_run_folder, slug
from tui.view import RESUMABLE_STATES, RunView

if TYPE_CHECKING:
    from tui.app import KilnApp
    from tui.workplace import Workplace

STEERING = frozenset({"pause", "release", "stop", "save", "sample"})
"""Actions that need a live run."""


class RunCommands(Screen[None]):
    """The actions that begin, steer and leave a run. Subclasses add what is shown of it."""

    app: KilnApp

    def __init__(self, workplace: Workplace) -> None:
        super().__init__()
        self.workplace = workplace
        self.leave_when_ended = False
        self._asked_to_hold: bool | None = None
        """What the last key asked for, until the run's state says the same: keys may be faster than the run."""

    @property
    def run_view(self) -> RunView:
        """The newest state."""
        return self.workplace.view

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Commands to the run are there only while it is live, starting one only while none is."""
        if action in STEERING:
            return self.run_view.live and (self.workplace.live or bool(self.workplace.elsewhere))
        if action == "smoothing":
            return self.workplace.run is not None
        if action == "start":
            # In the caption enter is text.
            place = self.workplace
            known = place.config is not None or place.run is not None
            return known and not place.live and place.session.pane != "caption"
        return True

    def send(self, command: Command, said: str) -> None:
        """Queue a command and say so; a run that ended meanwhile takes none, nor one that another process trains."""
        if self.workplace.run is None or not self.run_view.live:
            self.app.say("The run has ended; q leaves")
            return
        try:
            self.workplace.run.submit(command)
        except EngineError as err:
            self.app.show_error(err)
            return
        self.app.say(said)

    def action_start(self) -> None:
        """Begin the run that the configuration describes, go on with one that broke off, or set one up."""
        run, config = self.workplace.run, self.workplace.config
        from tui.screens.dialogs import Choice, ChoiceDialog

        choices, title = [], "Start a run"
        if self.run_view.state == "interrupted":
            title = "The run broke off: its process was killed, or crashed"
        if run is not None and run.folder is not None and self.run_view.state in RESUMABLE_STATES:
            stopped = self.run_view.state == "stopped"
            where = f"step {self.run_view.step}" if stopped else "what was saved last"
            choices.append(Choice("resume", "r", f"Go on with {run.folder.name} from {where}"))
        if config is not None:
            folder = next_run_folder(config.runs_dir, config.name)
            again = "anew " if folder.name != slug(config.name) else ""
            choices.append(Choice("start", "s", f"Start {config.name} {again}in {folder.parent.name}/{folder.name}"))
        choices.append(Choice("new", "n", "Change its settings first" if config is not None else "Set up a run"))
        self.app.push_screen(ChoiceDialog(title, self.plan_in_words(), choices), self._start_chosen)

    def plan_in_words(self) -> str:
        """What starting would do, in a sentence; subclasses know."""
        return ""

    def _start_chosen(self, choice: str | None) -> None:
        from tui.screens.resume import resume_after_look

        run, config = self.workplace.run, self.workplace.config
        try:
            if choice == "resume" and run is not None and run.folder is not None:
                asked = resume_after_look(self, self.workplace, run.folder.root)
                self.run_worker(asked, group="resume", exclusive=True)
            elif choice == "start" and config is not None:
                self.workplace.begin(config)
            elif choice == "new":
                self.action_new()
        except EngineError as err:
            self.app.show_error(err)

    def action_new(self) -> None:
        """Set up a run."""

    def action_pause(self) -> None:
        """Pause after this step, or go on."""
        self._toggle_hold(Pause(), "Pausing after this step")

    def action_release(self) -> None:
        """Pause and give the GPU's memory back; on a run that holds it so, go on."""
        if self.run_view.state == "paused":
            self.send(Pause(release=True), "Freeing memory")
        else:
            self._toggle_hold(Pause(release=True), "Pausing and freeing memory after this step")

    def _toggle_hold(self, pause: Pause, said: str) -> None:
        if self.workplace.elsewhere:
            self.send(pause, said)
            return
        held = self.run_view.held if self._asked_to_hold is None else self._asked_to_hold
        self._asked_to_hold = not held
        self.send(Resume() if held else pause, "Going on" if held else said)

    def _take_state(self) -> None:
        """Forget what was asked for once the state says it."""
        if self._asked_to_hold == self.run_view.held:
            self._asked_to_hold = None

    def action_save(self) -> None:
        """Save after this step."""
        self.send(SaveNow(), "Saving after this step")

    def action_sample(self) -> None:
        """Sample after this step."""
        self.send(SampleNow(), "Drawing samples after this step")

    def action_stop(self) -> None:
        """Ask how to stop."""
        from tui.screens.dialogs import Choice, ChoiceDialog

        if self.workplace.elsewhere:
            self.send(StopNow(), "")
            return
        view = self.run_view
        choices = [
            Choice("now", "n", "Now: save after this step and stop"),
            Choice("epoch", "e", f"After this epoch ({self.epoch_now})"),
            Choice("at", "a", "At the end of a later epoch"),
        ]
        if view.stop_epoch:
            choices.append(Choice("cancel", "c", f"Cancel the planned stop after epoch {view.stop_epoch}"))
        detail = "A stopped run is saved whole and can be resumed."
        self.app.push_screen(ChoiceDialog("Stop the run", detail, choices), self._stop_chosen)

    @property
    def epoch_now(self) -> int:
        """The epoch in progress: the next one when the last step closed an epoch."""
        view = self.run_view
        closed = bool(view.epoch_marks) and view.epoch_marks[-1].step == view.step
        return min(view.epochs or 10**9, view.epoch + 1) if closed else max(1, view.epoch)

    def _stop_chosen(self, choice: str | None) -> None:
        from tui.screens.dialogs import EpochDialog

        if choice == "now":
            self.send(StopNow(), "Saving and stopping after this step")
        elif choice == "epoch":
            self.send(StopAfterEpoch(), "Stopping after this epoch")
        elif choice == "cancel":
            self.send(CancelStop(), "The planned stop is cancelled")
        elif choice == "at":
            last = self.run_view.epochs or 10**6
            self.app.push_screen(EpochDialog(self.epoch_now, last), self._epoch_chosen)

    def _epoch_chosen(self, epoch: str | None) -> None:
        if epoch:
            self.send(StopAtEpoch(int(epoch)), f"Stopping at the end of epoch {int(epoch)}")

    def ask_to_leave(self) -> None:
        """Leave at once while nothing is live; ask before."""
        if not self.workplace.live:
            self.app.leave("leave")
            return
        from tui.screens.dialogs import Choice, ChoiceDialog

        stop = Choice("stop", "s", "Save and stop the run now, then leave")
        wait = Choice("wait", "w", "Stay until the run ends, then leave by itself")
        stay = Choice("stay", "c", "Cancel: stay here")
        if self.app.detachable:
            choices = [Choice("detach", "d", "Detach: the run goes on without a screen"), stop, stay]
            detail = "A run is live. `kiln` in this folder comes back to it, from any terminal."
        else:
            choices = [stop, wait, stay]
            detail = "The run is live. Leaving ends it, so it is saved first and can be resumed."
        self.app.push_screen(ChoiceDialog("Leave lorakiln", detail, choices), self._leave_chosen)

    def _leave_chosen(self, choice: str | None) -> None:
        if choice == "detach":
            self.app.leave("detach")
        elif choice == "stop" and self.workplace.run is not None:
            self.leave_when_ended = True
            self.workplace.run.submit(StopNow())  # whatever the view knows: a run that has ended takes no notice
            self.app.say("Saving and stopping, then leaving")
        elif choice == "wait":
            self.leave_when_ended = True
            self.app.say("Leaving when the run ends")
