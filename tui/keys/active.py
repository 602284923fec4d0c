"""What can be done here and now: the bindings in force on a screen, named by the tables of keys.

Help and palette are made of these, so that neither tells of a key that would do nothing, and both show the keys of
the user's own map.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from textual.binding import Binding
from textual.dom import DOMNode
from textual.screen import Screen

from tui.keys.key import shown
from tui.keys.tables import ALL_KEYS

BUILT_IN = {
    "app.focus_next": "The next part of the screen",
    "app.focus_previous": "The part before",
    "screen.copy_text": "Copy what is selected; else say how to stop",
    "undo": "Take the last change back",
    "redo": "Make it again",
    "cut": "Cut what is selected",
    "paste": "Insert what was copied here",
    "select_all": "Select everything",
    "delete_word_left": "Delete the word before the cursor",
    "cursor_line_start": "To the start of the line",
    "cursor_line_end": "To the end of the line",
}
"""Bindings of Textual's own widgets that are worth telling of; the rest are what every text field has."""

_ROWS = {key.id: key for key in ALL_KEYS}


@dataclass(frozen=True)
class Offer:
    """One thing to do: where it is defined, its action, the keys in force, and how the tables call it."""

    node: DOMNode
    action: str
    keys: tuple[str, ...]
    label: str
    help: str
    group: str
    id: str = ""
    palette: bool = False

    @property
    def shown(self) -> str:
        """The keys as people write them."""
        return ", ".join(shown(key) for key in self.keys if not self._is_second_spelling(key))

    def _is_second_spelling(self, key: str) -> bool:
        return key.startswith("super+")


def offers(screen: Screen[Any]) -> list[Offer]:
    """Everything that a key does on ``screen`` now: the focused pane's first, what works everywhere last."""
    active = screen.active_bindings.items()
    return _named((key, item.node, item.binding) for key, item in active if item.enabled)


def commands(screen: Screen[Any]) -> list[Offer]:
    """Everything that can be done on ``screen`` now, also what a text field in focus takes the keys of."""
    app = screen.app
    nodes = screen.focused.ancestors_with_self if screen.focused is not None else [screen, app]
    found: list[tuple[str, DOMNode, Binding]] = []
    for node in nodes:
        table = node._bindings.copy()
        table.apply_keymap(app._keymap)
        for key, binding in table:
            if app._check_action_state(binding.action, node):
                found.append((key, node, binding))
    return [offer for offer in _named(found) if offer.palette]


def _named(found: Iterable[tuple[str, DOMNode, Binding]]) -> list[Offer]:
    """One offer for each command, with all its keys, as the tables call it; what they do not know is left out."""
    named: dict[tuple[int, str], Offer] = {}
    for key, node, binding in found:
        row = _ROWS.get(binding.id or "")
        words = row.help if row is not None else BUILT_IN.get(binding.action, "")
        if not words:
            continue
        place = (id(node), binding.id or binding.action)
        keys = (*named[place].keys, key) if place in named else (key,)
        if row is not None:
            named[place] = Offer(node, binding.action, keys, row.label, words, row.group, row.id, row.palette)
        else:
            group = "Text field" if "." not in binding.action else "Everywhere"
            named[place] = Offer(node, binding.action, keys, words, words, group)
    return list(named.values())


def by_group(given: list[Offer]) -> dict[str, list[Offer]]:
    """The offers under their groups, which keep the order of their first."""
    groups: dict[str, list[Offer]] = {}
    for offer in given:
        groups.setdefault(offer.group, []).append(offer)
    for last in ("Everywhere", "Caption text", "Text field"):  # what is special to the place comes first
        if last in groups:
            groups[last] = groups.pop(last)
    return groups
