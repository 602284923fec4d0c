"""An application that fits its terminal: characters, colours, themes, frames a second, mouse.

All of it follows from what is known of the terminal (:class:`~tui.terminal.traits.Traits`) and what the user prefers
(:class:`~tui.settings.Settings`). A host makes one application for each terminal that comes, in one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import textual.screen
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.driver import Driver
from textual.events import Event, Resize
from textual.filter import LineFilter
from textual.screen import Screen
from textual.widget import Widget

from engine.errors import EngineError
from engine.text import safe_text
from tui.key_order import KeysInOrder
from tui.safe import install_backstop
from tui.settings import Settings, settings_path
from tui.terminal.traits import Traits
from tui.themes import DARK, THEMES, first_theme, user_themes

SLOW_HZ, QUICK_HZ = 20.0, 60.0
"""Most frames a second over a slow link, and on a quick terminal."""

FALLBACK = "textual-dark"
"""Textual's own theme, which it needs to start with; not offered."""


class Careful(LineFilter):
    """A filter of Textual's that may not touch control segments, nor be handed a segment without a style.

    The filters for colours drop the mark that tells a picture's escape sequence from text, and one of them fails
    on segments without a style.
    """

    def __init__(self, inner: LineFilter) -> None:
        super().__init__(inner.enabled)
        self.inner = inner

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Filter what is text."""
        if not any(control or style is None for _, style, control in segments):
            return self.inner.apply(segments, background)
        kept: list[Segment] = []
        for segment in segments:
            text, style, control = segment
            kept += [segment] if control else self.inner.apply([Segment(text, style or Style.null())], background)
        return kept


@lru_cache(maxsize=16)
def _careful(inner: LineFilter) -> Careful:
    """The same object for the same filter: strips keep what was filtered by it."""
    return Careful(inner)


def pass_over_old_sizes() -> None:
    """Have every screen of the process pass over sizes that the terminal no longer has.

    A screen that is laid out tells itself its size. Of two sizes that come in short time each would be told again
    while the other is laid out, for ever: the screen would do nothing else any more.
    """
    Screen.on_event = _on_event  # type: ignore[assignment,method-assign]


async def _on_event(screen: Screen[object], event: Event) -> None:
    if not isinstance(event, Resize) or event.size == screen.app.size:
        await Widget.on_event(screen, event)


class Fitted(KeysInOrder, inherit_bindings=False):
    """An application made for one terminal and one user.

    Args:
        traits: what the terminal can do.
        settings: what the user prefers.
        driver_class: what reads and writes the terminal; Textual's own when None.
    """

    def __init__(self, traits: Traits, settings: Settings, driver_class: type[Driver] | None = None) -> None:
        super().__init__(driver_class=driver_class)
        self.traits = traits
        self.settings = settings
        self.ascii_terminal = traits.ascii if settings.ascii == "auto" else settings.ascii == "on"
        install_backstop(self.ascii_terminal)
        pass_over_old_sizes()
        self.set_class(self.ascii_terminal, "-ascii")
        self.animation_level = "basic" if settings.animation and not traits.slow else "none"
        hz = settings.refresh_hz or (SLOW_HZ if traits.slow else QUICK_HZ)
        textual.screen.UPDATE_PERIOD = 1 / hz  # type: ignore[misc]
        self.redraw_s = 1.0 if traits.slow else 0.5
        """How often plots and figures of a live run are drawn anew."""
        if settings.keymap or settings.keys != "default":
            from tui.keymap import effective

            self.set_keymap(effective(settings.keys, settings.keymap))
        self.theme_errors = self._take_themes()
        """What is wrong with the user's themes, to be told once there is a screen."""

    def _take_themes(self) -> list[EngineError]:
        """Offer our themes and the user's, and use the one that is wished, or dark."""
        for name in list(self.available_themes):
            if name != FALLBACK:
                self.unregister_theme(name)
        own, found = user_themes(settings_path().parent / "themes")
        errors: list[EngineError] = list(found)
        for theme in (*THEMES, *own):
            self.register_theme(theme)
        wanted = first_theme(self.settings.theme, self.traits)
        if wanted not in self.theme_names:
            names = ", ".join(self.theme_names)
            errors.append(EngineError(f"No theme {safe_text(wanted, 40)}", f"There are {names}.", "Choose with f8."))
            wanted = DARK.name
        self.theme = wanted
        return errors

    @property
    def theme_names(self) -> list[str]:
        """The themes to choose from."""
        return [name for name in self.available_themes if name != FALLBACK]

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's filters, careful with control segments and segments without a style."""
        return [_careful(line_filter) for line_filter in super().get_line_filters()]

    def _build_driver(self, headless: bool, inline: bool, mouse: bool, size: tuple[int, int] | None) -> Driver:
        return super()._build_driver(headless, inline, mouse and self.settings.mouse, size)
