"""The ways from the workbench to the other screens and back: wizard, setup form, runs.

The session keeps which screen the user is on, so that another terminal shows it again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui.screens.machine_ways import MachineWays

if TYPE_CHECKING:
    from engine.config import RunConfig

ENDED = frozenset({"finished", "stopped"})
"""States in which a run is over, and nothing went wrong."""


class Ways(MachineWays):
    """The workbench's part that leaves it."""

    _pilot_told: Path | None = None
    """The run of which was looked whether it was a pilot."""

    def poll(self) -> None:
        """Show what is new. The workbench's."""
        raise NotImplementedError

    def run_root(self) -> Path | None:
        """The folder of the run that is shown. The workbench's."""
        raise NotImplementedError

    def return_to_screen(self) -> None:
        """Go back to the screen that the user was on."""
        if self.is_current and self.workplace.session.screen == "setup":
            self.set_up(None if self.workplace.session.form else self.workplace.config)
        elif self.is_current and self.workplace.session.screen == "wizard":
            self.action_wizard()
        elif self.is_current and self.workplace.session.screen == "runs":
            self.action_runs()
        elif self.is_current and self.workplace.session.screen == "epochs":
            self.action_epochs()

    def action_new(self) -> None:
        """Set up a run, beginning with what is open."""
        self.set_up(self.workplace.config)

    def set_up(self, config: RunConfig | None, changes: dict[str, Any] | None = None) -> None:
        """Open the setup form on ``config``, with ``changes`` (by dotted key) made and marked."""
        from tui.screens.setup import SetupScreen

        self._go("setup", SetupScreen(self.workplace, config, changes))

    def action_wizard(self) -> None:
        """Set up a run step by step: go on where that was left, else begin with what is open."""
        from tui.screens.wizard import WizardScreen

        begun = bool(self.workplace.session.wizard and self.workplace.session.form)
        self._go("wizard", WizardScreen(self.workplace, config=None if begun else self.workplace.config))

    def action_runs(self) -> None:
        """Show all runs."""
        from tui.screens.runs import RunsScreen

        self._go("runs", RunsScreen(self.workplace))

    def action_epochs(self) -> None:
        """Show the epochs of the run."""
        from tui.screens.epochs import EpochsScreen

        if (root := self.run_root()) is not None:
            self._go("epochs", EpochsScreen(self.workplace, root))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Epochs are there to look at once one left something behind."""
        if action == "epochs":
            view = self.run_view
            return bool(view.checkpoints or view.samples or view.measured)
        return super().check_action(action, parameters)

    def _go(self, name: str, screen: object) -> None:
        self.workplace.session.screen = name
        self.app.push_screen(screen, self._came_back)  # type: ignore[call-overload]

    def _came_back(self, result: object = None) -> None:
        """The other screen may have opened or begun something, and named the pane to go to; or want its like."""
        self.workplace.session.screen = "workbench"
        if result == "wizard":
            self.action_wizard()
            return
        if result == "form":
            self.set_up(None)
            return
        self.go_to(self.current)
        self.poll()

    def mind_pilot(self) -> None:
        """Once a pilot run is over, say how to go on to the real one."""
        root = self.run_root()
        if root is None or root == self._pilot_told or self.workplace.live or self.run_view.state not in ENDED:
            return
        from tui.wizard.pilot import is_pilot

        self._pilot_told = root
        if is_pilot(root):
            self.app.say("The pilot is over: w goes back to the review, F5 there starts the real run", 20.0)
