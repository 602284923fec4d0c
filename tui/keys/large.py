"""Keys of the screen that shows one picture large."""

from __future__ import annotations

from tui.keys.key import Key

_GROUP = "Large picture"

LARGE_KEYS: tuple[Key, ...] = (
    Key(
        "large.back",
        "escape,enter",
        "back",
        "Back",
        "Back to the table, at this picture",
        _GROUP,
        "esc",
        True,
        False,
    ),
    Key("large.nearer", "plus,equals_sign", "zoom(1)", "Nearer", "Zoom in", _GROUP, "+", True),
    Key("large.farther", "minus", "zoom(-1)", "Farther", "Zoom out", _GROUP, "-", True),
    Key("large.whole", "0", "whole", "Whole", "The whole picture", _GROUP, footer=True),
    Key("large.next", "n,pagedown,space", "step(1)", "Next", "The next picture", _GROUP, footer=True),
    Key("large.before", "p,pageup,backspace", "step(-1)", "Before", "The picture before", _GROUP, footer=True),
    Key("large.mark", "m", "mark", "Mark", "Mark this picture, or unmark it", _GROUP, footer=True),
    Key("large.crop", "c", "crop", "Crop", "Darken what training cuts off, or not", _GROUP, footer=True),
    Key("large.mask", "v", "mask", "Mask", "Show the picture's mask, or hide it", _GROUP),
    Key("large.left", "left,h", "pan(-1,0)", "Left", "Look further to the left", _GROUP, palette=False),
    Key("large.right", "right,l", "pan(1,0)", "Right", "Look further to the right", _GROUP, palette=False),
    Key("large.up", "up,k", "pan(0,-1)", "Up", "Look further up", _GROUP, palette=False),
    Key("large.down", "down,j", "pan(0,1)", "Down", "Look further down", _GROUP, palette=False),
)
