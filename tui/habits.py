"""What the application is used to, whatever it shows: help, palette, jumping, notices, errors, themes, ctrl+c.

:class:`Habits` is the base of the application and knows nothing of datasets and runs but the configuration that
remedies are computed from. Toasts are for errors and warnings; that a command was taken is said in one line
(:meth:`Habits.say`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import SystemCommand
from textual.binding import BindingType
from textual.driver import Driver
from textual.screen import Screen
from textual.widget import Widget

from engine.errors import EngineError
from engine.text import safe_text
from tui.error_text import Told
from tui.fitted import Fitted
from tui.keys.everywhere import EVERYWHERE_KEYS
from tui.keys.key import bindings, shown
from tui.palette import Commands, Palette
from tui.settings import Settings, keep_setting
from tui.terminal.traits import Traits
from tui.themes import few_colours
from tui.widgets.notice import SHOWN_S, Notice

if TYPE_CHECKING:
    from engine.config import RunConfig
    from engine.events import Slowed
    from tui.symptoms import Symptom

CTRL_C_S = 2.0
"""A second ctrl+c within this time opens the stop menu."""


class Habits(Fitted, inherit_bindings=False):
    """An application with the habits of lorakiln.

    Args:
        traits: what the terminal can do.
        settings: what the user prefers.
        driver_class: what reads and writes the terminal; Textual's own when None.

    Attributes:
        slowed: tells why the run that is shown has become slow; None where it has not.
    """

    COMMANDS: ClassVar[set[Any]] = {Commands}
    BINDINGS: ClassVar[list[BindingType]] = bindings(EVERYWHERE_KEYS)

    def __init__(self, traits: Traits, settings: Settings, driver_class: type[Driver] | None = None) -> None:
        super().__init__(traits, settings, driver_class)
        self._interrupted_at = -CTRL_C_S
        self.slowed: Callable[[], Slowed | None] = lambda: None

    def choose_theme(self, name: str) -> None:
        """Change the colours now, and in the settings for the next time, unless this terminal has few colours.

        What is chosen where other themes cannot be read is not for the terminals where they can.
        """
        self.theme = name
        if few_colours(self.traits):
            self.say(f"Theme {name}, on this terminal only: its colours are few")
            return
        try:
            keep_setting("theme", name)
        except EngineError as error:
            self.warn(error)
        else:
            if not self.screen.has_class("-tiny"):  # where it would be most of what is seen
                self.say(f"Theme {name}")

    def on_mount(self) -> None:
        """Tell what was wrong with themes, once there is a screen to tell it on."""
        for error in self.theme_errors:
            self.warn(error)

    def notify(self, message: str, **options: Any) -> None:
        """Show a toast, for errors and warnings; never markup, always through the gate for foreign text."""
        sign = {"error": "Error: ", "warning": "Warning: "}.get(options.get("severity", ""), "")
        title = safe_text(options.pop("title", ""), 100)
        super().notify(sign + safe_text(message, 400), title=title, **(options | {"markup": False}))

    def warn(self, error: Told) -> None:
        """A toast for an error that hinders nothing."""
        words = " ".join(part for part in (error.title + ":", error.detail, error.hint) if part)
        self.notify(words, severity="warning", timeout=8)

    def say(self, text: str, seconds: float = SHOWN_S) -> None:
        """Say in one line for a moment that a command was taken; the newest words replace older ones."""
        for screen in reversed(self.screen_stack):
            for notice in screen.query(Notice):
                notice.say(text, seconds)
                return

    def show_error(self, error: Told, log_path: str = "", heading: str = "") -> None:
        """Open the dialog for an error: what is wrong, where, and what to do."""
        from tui.screens.dialogs import ErrorDialog

        self.push_screen(ErrorDialog(error, log_path, heading))

    def copy_words(self, text: str, what: str) -> None:
        """Copy to the terminal's clipboard (OSC 52), and say what was."""
        self.copy_to_clipboard(text)
        self.say(f"Copied {what}")

    def action_command_palette(self) -> None:
        """Open the palette over what is shown."""
        if not isinstance(self.screen, Palette):
            self.push_screen(Palette(id="--command-palette"))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """None: the palette's entries are those of the tables."""
        return ()

    def remedy_config(self) -> RunConfig | None:
        """The configuration that remedies are computed from; None where none is shown."""
        return None

    def apply_remedy(self, symptom: Symptom, config: RunConfig) -> None:
        """Open the setup form on ``config`` with the remedy's changes marked. The application knows how."""

    def explain_interrupt(self, again: bool) -> str:
        """What ctrl+c says; the application does more on the second one in short time."""
        return f"Nothing is stopped: {self.key_of('app.leave')} leaves"

    def key_of(self, name: str) -> str:
        """The key of a command that works in text fields too: the last one, as it is written."""
        keys = self._keymap.get(name) or next(key.keys for key in EVERYWHERE_KEYS if key.id == name)
        return shown(keys.split(",")[-1])

    def action_interrupt(self) -> None:
        """ctrl+c stops nothing: it says how to. (Selected text is copied before this is reached.)"""
        now = time.monotonic()
        again = now - self._interrupted_at < CTRL_C_S
        self._interrupted_at = now
        if words := self.explain_interrupt(again):
            self.say(words, 5.0)

    def action_help(self, symptom: str = "") -> None:
        """Show what works here, and the guide to trouble."""
        from tui.keys.active import offers
        from tui.screens.help import HelpScreen
        from tui.symptoms import guide

        page = getattr(self.screen.focused, "HELP_PAGE", "keys")
        found = offers(self.screen)
        self.push_screen(
            HelpScreen(found, self.remedy_config(), symptom, guide(self.slowed()), page), self._help_closed
        )

    def _help_closed(self, symptom: Symptom | None) -> None:
        config = self.remedy_config()
        if symptom is not None and config is not None:
            self.apply_remedy(symptom, config)

    def action_jump(self) -> None:
        """Show a letter on every part of the screen; it goes there."""
        from tui.screens.jump import JumpScreen, targets

        def go_to(widget: Widget | None) -> None:
            if widget is not None:
                widget.focus()

        found = targets(self.screen)
        if found:
            self.push_screen(JumpScreen(found), go_to)

    def action_next_theme(self) -> None:
        """The next theme."""
        names = self.theme_names
        self.choose_theme(names[(names.index(self.theme) + 1) % len(names)] if self.theme in names else names[0])

    def action_repaint(self) -> None:
        """Draw everything anew, for a terminal that something else wrote to."""
        self.screen.refresh(layout=True)
