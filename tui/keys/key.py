"""What a key is: a row of a table from which bindings, footer, palette and help are made.

Each row has an id, so that a user's settings can give it other keys (Textual's ``App.set_keymap``). Single letters
are for panes without a text field; nothing that matters is bound to a key that plain terminals confuse (ctrl+m,
ctrl+i, ctrl+h, ctrl+j).
"""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding, BindingType
from textual.keys import key_to_character


@dataclass(frozen=True)
class Key:
    """One command of the screen: the keys that reach it, its action, and how it is called in footer and help."""

    id: str
    keys: str
    action: str
    label: str
    help: str
    group: str
    shown: str = ""
    """How the key is written; the first of ``keys`` when empty."""
    footer: bool = False
    palette: bool = True
    priority: bool = False
    """Taken before the widget in focus sees the key."""

    @property
    def display(self) -> str:
        """The key as written in footer and help."""
        return self.shown or self.keys.split(",")[0]


_WRITTEN = {
    "escape": "esc", "pageup": "page up", "pagedown": "page down", "slash": "/", "plus": "+", "minus": "-",
    "underscore": "_", "ctrl+underscore": "ctrl+_", "ctrl+backslash": "ctrl+\\",
}  # fmt: skip


def shown(key: str) -> str:
    """A key as people write it: ``?`` for question_mark, ``page up`` for pageup."""
    if key in _WRITTEN:
        return _WRITTEN[key]
    character = key_to_character(key)
    return character if character is not None and character.isprintable() and character != " " else key


def bindings(keys: tuple[Key, ...]) -> list[BindingType]:
    """Textual bindings of a table's rows, in its order.

    Each key of a row is shown by its own name: in a text field, which takes letters, the footer tells the key that
    is left.
    """
    return [
        Binding(
            name,
            key.action,
            key.label,
            show=key.footer,
            key_display=shown(name).replace("ctrl+", "^") if number else key.display,
            tooltip=key.help,
            id=key.id,
            priority=key.priority,
        )
        for key in keys
        for number, name in enumerate(key.keys.split(","))
    ]
