"""What the run screen asks of the run: every action here ends in a command on the queue, or in leaving."""

from __future__ import annotations

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
from tui.bridge import Bridge, RunLike
from tui.screens.dialogs import Choice, ChoiceDialog, EpochDialog, HelpDialog
from tui.view import RunView

STEERING = frozenset({"pause", "release", "stop", "save", "sample"})
"""Actions that need a live run."""


SAID_S = 2.5
"""How long it is shown that a command was taken: the header tells the rest."""


class RunCommands(Screen[None]):
    """The actions that steer a run. Subclasses add what is shown of it."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self.bridge = bridge
        self.leave_when_ended = False
        self._asked_to_hold: bool | None = None
        """What the last key asked for, until the run's state says the same: keys may be faster than the run."""

    @property
    def training(self) -> RunLike:
        """The run that is steered."""
        return self.bridge.run

    @property
    def run_view(self) -> RunView:
        """The newest state."""
        return self.bridge.view

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Commands to the run are there only while it is live."""
        return action not in STEERING or self.run_view.live

    def send(self, command: Command, said: str) -> None:
        """Queue a command and say so; a run that ended meanwhile takes none."""
        if not self.run_view.live:
            self.notify("The run has ended; q leaves", severity="warning")
            return
        self.training.submit(command)
        self.notify(said, timeout=SAID_S)

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
        view = self.run_view
        choices = [
            Choice("now", "n", "Now: save after this step and stop"),
            Choice("epoch", "e", f"After this epoch ({max(1, self._epoch_now())})"),
            Choice("at", "a", "At the end of a later epoch"),
        ]
        if view.stop_epoch:
            choices.append(Choice("cancel", "c", f"Cancel the planned stop after epoch {view.stop_epoch}"))
        detail = "A stopped run is saved whole and can be resumed."
        self.app.push_screen(ChoiceDialog("Stop the run", detail, choices), self._stop_chosen)

    def _epoch_now(self) -> int:
        """The epoch in progress: the next one when the last step closed an epoch."""
        view = self.run_view
        closed = bool(view.epoch_marks) and view.epoch_marks[-1].step == view.step
        return min(view.epochs or 10**9, view.epoch + 1) if closed else max(1, view.epoch)

    def _stop_chosen(self, choice: str | None) -> None:
        if choice == "now":
            self.send(StopNow(), "Saving and stopping after this step")
        elif choice == "epoch":
            self.send(StopAfterEpoch(), "Stopping after this epoch")
        elif choice == "cancel":
            self.send(CancelStop(), "The planned stop is cancelled")
        elif choice == "at":
            last = self.run_view.epochs or 10**6
            self.app.push_screen(EpochDialog(self._epoch_now(), last), self._epoch_chosen)

    def _epoch_chosen(self, epoch: str | None) -> None:
        if epoch:
            self.send(StopAtEpoch(int(epoch)), f"Stopping at the end of epoch {int(epoch)}")

    def action_leave(self) -> None:
        """Leave at once after the end; ask before."""
        if not self.run_view.live and not self.training.alive:
            self.app.exit()
            return
        choices = [
            Choice("stop", "s", "Save and stop now, then leave"),
            Choice("wait", "w", "Leave by itself when the run ends"),
            Choice("stay", "c", "Cancel: stay here"),
        ]
        detail = "The run is live. Leaving ends it, so it is saved first and can be resumed."
        self.app.push_screen(ChoiceDialog("Leave lorakiln", detail, choices), self._leave_chosen)

    def _leave_chosen(self, choice: str | None) -> None:
        if choice == "stop":
            self.leave_when_ended = True
            self.training.submit(StopNow())  # whatever the view knows: a run that has ended takes no notice
            self.notify("Saving and stopping, then leaving")
        elif choice == "wait":
            self.leave_when_ended = True
            self.notify("Leaving when the run ends")

    def action_help(self) -> None:
        """Show all keys."""
        self.app.push_screen(HelpDialog())

    def action_repaint(self) -> None:
        """Draw everything anew, for a terminal that something else wrote to."""
        self.refresh(layout=True)
