"""Keys of captioning by machine: what asks for it, and the review of what came of it."""

from __future__ import annotations

from tui.keys.key import Key

MACHINE_KEYS: tuple[Key, ...] = (
    Key("dataset.machine", "A", "screen.machine", "By machine", "Have a model caption pictures", "Dataset pane", "A"),
    Key("dataset.review", "V", "screen.review", "Review", "Review captions by machine", "Dataset pane", "V"),
)
"""Bound in the dataset pane; the screen does it."""

ASK_KEYS: tuple[Key, ...] = (
    Key("machine.start", "f5", "start", "Start", "Begin to caption", "Caption by machine", "F5", True),
    Key("machine.list", "f4", "list", "List", "Choose from the models found", "Caption by machine", "F4", True),
)

_GROUP = "Review"


def _key(name: str, keys: str, action: str, label: str, words: str, shown: str = "", footer: bool = True) -> Key:
    return Key(f"review.{name}", keys, action, label, words, _GROUP, shown, footer)


REVIEW_KEYS: tuple[Key, ...] = (
    _key("keep", "enter", "keep", "Take chosen", "Write the caption with the chosen parts of the machine's"),
    _key("whole", "a", "whole", "Take all", "Write the machine's caption as it is"),
    _key("refuse", "x,delete", "refuse", "Refuse", "Leave the caption as it is, and put the machine's aside"),
    _key("choose", "space", "choose", "Choose", "Choose this part, or leave it out"),
    _key("part", "tab,right,l", "part(1)", "Part", "The next part that differs"),
    _key("next", "down,j,n", "step(1)", "Next", "The next picture; this one stays undecided", "down"),
    _key("kind", "A", "kind", "Many", "Take or refuse all of a kind", "A"),
    _key("undo", "u", "undo", "Undo", "Take the last decision back"),
    _key("part_back", "shift+tab,left,h", "part(-1)", "Part before", "The part before", footer=False),
    _key("none", "c", "none", "None", "Choose no part, or all of them", footer=False),
    _key("previous", "up,k,p", "step(-1)", "Before", "The picture before", "up", False),
    _key("first", "home,g", "edge(0)", "First", "The first picture", footer=False),
    _key("last", "end,G", "edge(-1)", "Last", "The last picture", footer=False),
    Key("review.back", "escape", "back", "Back", "Back to the dataset", _GROUP, "esc", True, False),
)
