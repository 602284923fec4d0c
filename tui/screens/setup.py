"""The setup form: everything a run needs on one screen, checked while it is typed, written as TOML and started.

Returns "started", "written", "wizard", or None when the user goes back. What is typed stays in the session, so the
form comes back as it was left, on another terminal too. The form's meaning is :mod:`tui.setup`'s; this screen shows
it. The wizard (:mod:`tui.screens.wizard`) shows the same values step by step.
"""

from __future__ import annotations

from typing import Any

from textual import work
from textual.widget import Widget

from engine.config import RunConfig
from engine.dataset.scan import Scan
from tui.keys.key import bindings
from tui.keys.setup import SETUP_KEYS
from tui.safe import safe
from tui.screens.form_fields import next_to_mend
from tui.screens.setup_view import FormView
from tui.setup.form import SetupForm, free_name
from tui.workplace import Workplace


class SetupScreen(FormView):
    """The form.

    Args:
        workplace: where the configuration is written and the run begins.
        config: another run's configuration to start from.
        changes: advised settings by dotted key, marked in the form.
    """

    CSS_PATH = "setup.tcss"
    BINDINGS = bindings(SETUP_KEYS)
    AUTO_FOCUS = "#field-base"

    def __init__(
        self, workplace: Workplace, config: RunConfig | None = None, changes: dict[str, Any] | None = None
    ) -> None:
        super().__init__(workplace)
        self.untouched = not workplace.session.form and config is None
        self.form = SetupForm(workplace.folder, workplace.session.form)
        if config is not None:
            self.form.take(config, free_name(workplace.folder, config.name), anew=bool(changes))
        if changes:
            self.form.advise(changes)
        if self.untouched:  # before there are controls: what they are made with comes back as if it were typed
            self.begin()
        self.checked = self.form.check()
        self.notes = {}

    def on_mount(self) -> None:
        """Begin with what the work folder suggests, and look for model files."""
        self.query_one("#side").border_title = safe("Configuration")
        self._lay_out(self.app.size.width)
        self.refill()
        self.tell_skipped()
        self.find_models()

    def action_preview(self) -> None:
        """On a narrow screen the configuration instead of the form, or back."""
        self.toggle_class("-preview")
        self.query_one("#side" if self.has_class("-preview") else "#field-base", Widget).focus()

    def action_problem(self) -> None:
        """Go to the next field with something wrong."""
        name = next_to_mend(self)
        if not name:
            return
        self.remove_class("-preview")
        self.control(name).focus()

    def action_back(self) -> None:
        """Leave; a narrow screen's other page first."""
        if self.has_class("-preview"):
            self.action_preview()
        else:
            self.dismiss(None)

    @work(group="dialog", exclusive=True)
    async def action_prompts(self) -> None:
        """Write sample prompts from the captions; over what was typed."""
        from tui.setup.prompts import fill_in, written

        await self.settled()
        if self.checked.config is None or not isinstance(self.scan, Scan) or not self.scan.samples:
            self.app.say("Prompts are written from captions: name a folder with pictures first, and mend what is red")
            return
        prompts = await self._off(written, self.scan, self.checked.config)
        if prompts:
            fill_in(self.form.values, prompts)
            self.untouched = False
            self.refill()
        self.app.say(f"{len(prompts)} prompts are written" if prompts else "There are no captions to write them from")

    def action_wizard(self) -> None:
        """Show the same values step by step."""
        self.dismiss("wizard")

    @work(group="start", exclusive=True)
    async def action_write(self) -> None:
        """Write the configuration and show it in the workbench."""
        if await self.written():
            self.dismiss("written")

    @work(group="start", exclusive=True)
    async def action_start(self) -> None:
        """Write the configuration and start the run."""
        config = await self.written()
        if config is None:
            return
        if self.app.attempt(lambda: self.workplace.begin(config)) is None:
            return
        self.workplace.session.pane = "training"
        self.dismiss("started")
