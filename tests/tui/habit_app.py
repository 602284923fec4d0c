"""A small application with the habits of the real one, and a screen of ordinary widgets."""

from __future__ import annotations

from pathlib import Path

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import Footer, Input, OptionList, Static, TextArea

import tui.screens
from engine.config import RunConfig
from tui.habits import Habits
from tui.keys.key import bindings
from tui.keys.run import RUN_KEYS
from tui.settings import Settings
from tui.symptoms import Symptom
from tui.terminal.traits import Traits
from tui.widgets.notice import Notice


class Plain(Screen[None]):
    """Widgets that take the focus, and keys that steer a run when ``live``."""

    BINDINGS = bindings(RUN_KEYS)
    live = True

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    def compose(self) -> ComposeResult:
        """A field, an editor, a list, a line and the footer."""
        yield Input(id="field")
        yield TextArea("words in the editor", id="editor")
        yield OptionList("one", "two", id="list")
        yield Static("a line")
        yield Footer(show_command_palette=False)
        yield Notice()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Steering needs a live run."""
        return self.live or action not in ("pause", "stop")

    def action_pause(self) -> None:
        """Remember it."""
        self.done.append("pause")

    def action_stop(self) -> None:
        """Remember it."""
        self.done.append("stop")


class SmallApp(Habits):
    """The habits around one plain screen."""

    CSS_PATH = str(Path(tui.screens.__file__).with_name("dialogs.tcss"))

    def __init__(
        self, traits: Traits | None = None, settings: Settings | None = None, config: RunConfig | None = None
    ) -> None:
        super().__init__(traits or Traits(), settings or Settings())
        self.plain = Plain()
        self.config = config
        self.applied: list[dict[str, object]] = []
        self.interrupts: list[bool] = []

    def on_mount(self) -> None:
        """Show the screen."""
        self.push_screen(self.plain)

    def remedy_config(self) -> RunConfig | None:
        """The configuration given."""
        return self.config

    def apply_remedy(self, symptom: Symptom, config: RunConfig) -> None:
        """Remember the changes."""
        self.applied.append(symptom.changes(config))

    def explain_interrupt(self, again: bool) -> str:
        """Remember which."""
        self.interrupts.append(again)
        return super().explain_interrupt(again)

    @property
    def text(self) -> str:
        """What the screen shows."""
        return "\n".join(strip.text for strip in self.screen._compositor.render_strips())
