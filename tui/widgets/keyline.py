"""The last line of a screen: keys that do something now, the current pane's first; help and leaving always in sight.

One painted line instead of a widget for every key: sooner on the screen, and where there is little room the keys in
the middle are left out, not those at the end. A click on a key presses it.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from textual.events import Click
from textual.screen import Screen
from textual.strip import Strip

from engine.text import safe_text
from tui.widgets.cells import CellWidget, Run, strip_of

ALWAYS = ("app.detach", "app.help", "app.leave")
"""Ids of the keys at the right end."""


@dataclass(frozen=True)
class Hint:
    """One key: how it is written, what it does, and the key to press for it."""

    shown: str
    label: str
    key: str
    id: str

    @property
    def cells(self) -> int:
        """How wide it is."""
        return cell_len(self.shown) + 1 + cell_len(self.label)


class KeyLine(CellWidget):
    """The line of keys."""

    DEFAULT_CSS = """
    KeyLine { dock: bottom; height: 1; background: $footer-background; color: $footer-description-foreground; }
    KeyLine > .keyline--key { color: $footer-key-foreground; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"keyline--key"}
    GAP = 2

    def __init__(self) -> None:
        super().__init__()
        self._hints: tuple[Hint, ...] = ()
        self._spans: list[tuple[int, int, Hint]] = []

    def on_mount(self) -> None:
        """Follow what the keys do."""
        self.screen.bindings_updated_signal.subscribe(self, self._follow)

    def _follow(self, screen: Screen[object]) -> None:
        if not (self.is_attached and screen is self.screen and self.app.app_focus):
            return
        found: dict[str, Hint] = {}
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.show and active.enabled:
                shown = safe_text(self.app.get_key_display(binding), 20)
                hint = Hint(shown, safe_text(binding.description, 30), binding.key, binding.id or binding.action)
                found.setdefault(hint.id, hint)
        hints = tuple(found.values())
        if hints != self._hints:
            self._hints = hints
            self.refresh()

    def content_key(self) -> Hashable:
        """The keys."""
        return self._hints

    def paint(self, width: int, height: int) -> list[Strip]:
        """As many as fit at the left, the ones that are always there at the right."""
        right = [hint for name in ALWAYS for hint in self._hints if hint.id == name]
        left = [hint for hint in self._hints if hint.id not in ALWAYS]
        room = width - 2 - sum(hint.cells + self.GAP for hint in right)
        kept: list[Hint] = []
        for hint in left:
            if hint.cells > room:
                break
            kept.append(hint)
            room -= hint.cells + self.GAP
        return [strip_of(self._runs(kept, right, width), width, self.rich_style)]

    def _runs(self, left: list[Hint], right: list[Hint], width: int) -> list[Run]:
        runs: list[Run] = [(" ", self.rich_style)]
        self._spans, at = [], 1
        start = width - 1 - sum(hint.cells + self.GAP for hint in right) + self.GAP
        for number, hint in enumerate([*left, *right]):
            if number == len(left) and start > at:
                runs.append((" " * (start - at), self.rich_style))
                at = start
            runs.append((hint.shown, self.style_of("keyline--key")))
            runs.append((f" {hint.label}{' ' * self.GAP}", self.rich_style))
            self._spans.append((at, at + hint.cells, hint))
            at += hint.cells + self.GAP
        return runs

    def on_click(self, event: Click) -> None:
        """Press the key under the pointer."""
        for start, end, hint in self._spans:
            if start <= event.x < end:
                self.app.simulate_key(hint.key)
