"""A user's own keys: whether ids and keys exist and do not collide, and what becomes of them for Textual.

Comes in as the ``keys`` and ``keymap`` of the settings, goes out as the mapping for ``App.set_keymap``. Checks raise
ValueError, which the settings' reader puts a line to.
"""

from __future__ import annotations

import difflib
import unicodedata

from textual.keys import KEY_NAME_REPLACEMENTS, Keys, _character_to_key

from tui.key_order import as_typed
from tui.keys.tables import ALL_KEYS

MODIFIERS = frozenset({"ctrl", "alt", "shift", "super", "hyper", "meta"})
SAME_AS = {"ctrl+m": "enter", "ctrl+i": "tab", "ctrl+h": "backspace", "ctrl+j": "a new line", "ctrl+[": "escape"}
"""Keys that plain terminals send as others."""

PRESETS: dict[str, dict[str, str]] = {
    "default": {},
    "vim": {
        "samples.previous": "left,h",
        "samples.next": "right,l",
        "samples.earlier": "up,k",
        "samples.later": "down,j",
        "samples.newest": "end,G",
        "log.first": "home,g",
        "log.last": "end,G",
        "log.page_up": "pageup,ctrl+u",
        "log.page_down": "pagedown,ctrl+d",
    },
}
"""Sets of keys to start from: what differs from the tables."""

_TOGETHER = tuple(
    frozenset(parts.split())
    for parts in (
        "run view pane",
        "caption edit",
        "setup field",
        "wizard field",
        "wizard act",
        "replace field",
        "replace ticks",
        "words field",
        "words counts",
        "dialog error",
        "dialog help",
        "dialog verdict",
        "dialog take",
        "dialog usage",
    )
)
"""First parts of ids of commands that are given in the same place."""

_MODAL = frozenset({"dialog", "error", "help", "jump", "verdict", "take", "usage"})
"""Where the keys that work everywhere else do not."""

_TYPING = ("caption.", "edit.", "filter.", "setup.", "wizard.", "replace.")
"""Where letters are typed."""

_NAMED = {key.value for key in Keys} | set(KEY_NAME_REPLACEMENTS.values())


def effective(preset: str, keymap: dict[str, str]) -> dict[str, str]:
    """The mapping for ``App.set_keymap``: the preset's keys, the user's over them."""
    return {name: ",".join(_spellings(keys)) for name, keys in (PRESETS[preset] | keymap).items()}


def _spellings(keys: str) -> list[str]:
    """These keys as the application is told of them."""
    return [_character_to_key(key) if len(key) == 1 else as_typed(key) for key in _split(keys)]


def _split(keys: str) -> list[str]:
    return [key.strip() for key in keys.split(",")]


def check_id(name: str) -> str:
    """``name`` if a command has that id.

    Raises:
        ValueError: none has; the nearest is named.
    """
    known = sorted({key.id for key in ALL_KEYS})
    if name in known:
        return name
    nearest = difflib.get_close_matches(name, known, 1, 0.4)
    guess = f"; did you mean {nearest[0]}?" if nearest else ""
    raise ValueError(f"is no command's id{guess} (? on the screen lists keys, and ids with them)")


def check_keys(keys: str) -> str:
    """``keys`` if every one of them is a key that a terminal can send.

    Raises:
        ValueError: one is none, or cannot be told from another.
    """
    for key in _split(keys):
        *modifiers, last = key.split("+") if key != "+" else ["plus"]
        if key.lower() in SAME_AS:
            raise ValueError(f"has {key}, which terminals send as {SAME_AS[key.lower()]}; choose another")
        if not set(modifiers) <= MODIFIERS or not _is_key(last):
            raise ValueError(f'has "{key}", which is no key; keys are like p, S, f9, ctrl+t, alt+up, question_mark')
    return keys


def _is_key(name: str) -> bool:
    if len(name) == 1:
        return name.isprintable() and not name.isspace()
    if name in _NAMED:
        return True
    try:
        unicodedata.lookup(name.replace("_", " "))
    except KeyError:
        return False
    return name == name.lower()


def check_clashes(keymap: dict[str, str]) -> None:
    """Whether every key that ``keymap`` gives is free where it counts: in its own pane, and everywhere.

    Raises:
        ValueError: two commands of one part would share a key, or a pane's letter could only be typed.
    """
    keys_of = {key.id: key.keys for key in ALL_KEYS} | keymap
    for name, keys in keymap.items():
        for key in _spellings(keys):
            if name.startswith(_TYPING) and len(key) == 1:
                raise ValueError(f'gives {name} the key "{key}", which is typed there; take one with ctrl or alt')
            for other, others in keys_of.items():
                if other != name and _meet(name, other) and key in _spellings(others):
                    raise ValueError(f'gives "{key}" to {name}, but {other} has it')


def _meet(name: str, other: str) -> bool:
    """Whether two commands can be asked for in the same place: by the first part of their ids."""
    places = {name.split(".")[0], other.split(".")[0]}
    everywhere = "app" in places and not places & _MODAL
    return len(places) == 1 or everywhere or any(places <= group for group in _TOGETHER)
