"""The wizard: step by step from "is a LoRA the right thing" to a run that fits this machine.

Returns "started", "written", "form" (the same values in the setup form), or None when the user goes back. All of it
stays in the session. The pages are :mod:`tui.wizard.pages`, the form's meaning is :mod:`tui.setup`'s, what fits is
the planner's to say; this screen carries values between them.
"""

from __future__ import annotations

from textual import on, work
from textual.widget import Widget
from textual.widgets import ContentSwitcher

from engine.config import RunConfig
from tui.keys.key import bindings
from tui.keys.wizard import WIZARD_KEYS
from tui.safe import safe
from tui.screens.dialogs import Choice as Answer
from tui.screens.dialogs import ChoiceDialog
from tui.screens.form_fields import next_to_mend
from tui.screens.wizard_values import Values
from tui.setup.form import SetupForm, free_name
from tui.widgets.wizard import Act, Tabs
from tui.wizard import answers, pages, pilot, summary
from tui.wizard.pages import PAGES
from tui.wizard.planner import Planner
from tui.workplace import Workplace


class WizardScreen(Values):
    """The wizard.

    Args:
        workplace: where the configuration is written and the run begins.
        planner: who knows the machine and what fits it; the real one when None.
        config: another run's configuration to start from.
    """

    CSS_PATH = "wizard.tcss"
    BINDINGS = bindings(WIZARD_KEYS)
    AUTO_FOCUS = ""

    def __init__(
        self,
        workplace: Workplace,
        planner: Planner | None = None,
        config: RunConfig | None = None,
    ) -> None:
        if planner is None:
            from tui.wizard.profiles import Profiles

            planner = Profiles()
        super().__init__(workplace, planner)
        self.untouched = not workplace.session.form and config is None
        self.form = SetupForm(workplace.folder, workplace.session.form)
        if config is not None:
            self.form.take(config, free_name(workplace.folder, config.name))
        answers.begin(self.answers)
        self.number = pages.number_of(self.answers.get("page", ""))
        if self.untouched:  # before there are controls: what they are made with comes back as if it were typed
            self.begin()
        self.checked = self.form.check()
        self.notes = {}

    def on_mount(self) -> None:
        """Begin where the user was, and look at model files and machine."""
        self.query_one("#side").border_title = safe("Memory and time")
        self._read_pilot()
        self.lay_out(self.app.size.width)
        self.refill()
        self.tell_skipped()
        self.find_models()
        self.find_places()
        self.call_after_refresh(self.show_page, self.number)

    def _read_pilot(self) -> None:
        """What the pilot showed, if it is the run that is shown now."""
        run, view = self.workplace.run, self.workplace.view
        if run is None or run.folder is None or not pilot.is_pilot(run.folder.root):
            return
        self.answers["pilot"] = pilot.told(run.folder.name, view, self.answers.get("forecast", ""))

    # Pages

    def show_page(self, number: int, field: str = "") -> None:
        """Go to a page, and there to ``field`` or to the first thing that takes the focus."""
        self.number = max(0, min(len(PAGES) - 1, number))
        page = PAGES[self.number]
        self.answers["page"] = page.id
        self.remove_class("-preview")
        self.query_one(ContentSwitcher).current = f"page-{page.id}"
        self.looked()
        self.refresh_bindings()
        self.call_after_refresh(self._focus_in, page.id, field)

    def _focus_in(self, page: str, field: str) -> None:
        if page != PAGES[self.number].id or not self.is_mounted:
            return
        if field and self.query(f"#field-{field}"):
            self.query_one(f"#field-{field}").focus()
            return
        inside = self.query_one(f"#page-{page}")
        first = next((widget for widget in self.focus_chain if inside in widget.ancestors), None)
        if first is not None:
            first.focus()
        inside.scroll_home(animate=False)

    def action_turn(self, by: int) -> None:
        """The next page, or the one before."""
        if 0 <= self.number + by < len(PAGES):
            self.show_page(self.number + by)

    @on(Tabs.Chosen)
    def _tab_chosen(self, event: Tabs.Chosen) -> None:
        self.show_page(event.number)

    @on(Act.Pressed)
    async def _pressed(self, event: Act.Pressed) -> None:
        what = event.act.what
        if what.startswith("next-"):
            self.action_turn(1)
        else:
            await self.run_action(what)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys are offered where they do something."""
        page = PAGES[self.number].id
        if action == "turn":
            return 0 <= self.number + int(str(parameters[0])) < len(PAGES)
        if action == "preview":
            return self.has_class("-narrow")
        if action == "folders":
            return page == "dataset"
        if action == "problem":
            return bool(self.to_mend or self.elsewhere)
        return True

    def action_preview(self) -> None:
        """On a narrow screen the plan instead of the page, or back."""
        self.toggle_class("-preview")
        if self.has_class("-preview"):
            self.query_one("#side", Widget).focus()
        else:
            self._focus_in(PAGES[self.number].id, "")

    def action_problem(self) -> None:
        """Go to the next field with something wrong, on whatever page it is."""
        name = next_to_mend(self)
        if name:
            self.show_page(pages.page_of(name), name)
        elif self.elsewhere:
            self.app.say("What is wrong has no field here: F3 shows all of it")

    def action_back(self) -> None:
        """Leave; a narrow screen's plan first."""
        if self.has_class("-preview"):
            self.action_preview()
        else:
            self.dismiss(None)

    def action_form(self) -> None:
        """Show all of it on one screen."""
        self.dismiss("form")

    def action_anew(self) -> None:
        """Forget everything answered and typed."""
        self.answers.clear()
        answers.begin(self.answers)
        super().action_anew()
        self.show_page(0)

    # The end

    @work(group="start", exclusive=True)
    async def action_write(self) -> None:
        """Write the configuration and show it in the workbench."""
        if await self.written():
            self.dismiss("written")

    @work(group="start", exclusive=True)
    async def action_start(self) -> None:
        """Write the configuration and start the run."""
        await self._start(trial=False)

    @work(group="start", exclusive=True)
    async def action_pilot(self) -> None:
        """Write the configuration and start a pilot run of it."""
        await self._start(trial=True)

    async def _start(self, trial: bool) -> None:
        await self.settled()
        if not await self._may_begin():
            return
        config = await self.written()
        if config is None:
            return
        path, fit = self.workplace.config_path, self.fit
        wanted = config
        if trial:
            wanted = pilot.pilot_of(config, pilot.steps_for(fit) if fit is not None else pilot.LEAST)
        if self.app.attempt(lambda: self.workplace.begin(wanted)) is None:
            return
        if trial:  # the real one is what the workbench would start next
            self.workplace.use(config, path)
            self.answers |= {"page": "review", "forecast": pilot.forecast_words(fit) if fit is not None else ""}
        self.workplace.session.pane = "training"
        self.dismiss("started")

    async def _may_begin(self) -> bool:
        """Ask before a run is begun that will not fit."""
        fit, place = self.fit, self.place
        if fit is None or fit.fits or place is None:
            return True
        detail = "\n".join([summary.verdict_words(fit, place), *fit.warnings, *fit.remedies])
        question = ChoiceDialog(
            "It will not fit",
            detail,
            [Answer("back", "b", "Back to the settings"), Answer("go", "a", "All the same")],
        )
        return await self.app.push_screen_wait(question) == "go"
