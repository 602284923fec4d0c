"""Keys of the screen where a picture is cropped."""

from __future__ import annotations

from tui.keys.key import Key

_GROUP = "Crop"

CROP_KEYS: tuple[Key, ...] = (
    Key("crop.keep", "enter", "keep", "Keep", "Keep the crop and go back", _GROUP, footer=True, palette=False),
    Key(
        "crop.leave", "escape", "leave", "Leave", "Go back; this picture stays as it was", _GROUP, "esc", True, False
    ),
    Key("crop.remove", "0", "remove", "Whole", "Take the crop away: the whole picture", _GROUP, footer=True),
    Key("crop.shape", "a", "shape(1)", "Shape", "The next shape: free, square, the buckets'", _GROUP, footer=True),
    Key("crop.shape_back", "A", "shape(-1)", "Shape before", "The shape before", _GROUP, "A"),
    Key("crop.larger", "plus,equals_sign", "scale(1)", "Larger", "A larger box", _GROUP, "+", True),
    Key("crop.smaller", "minus", "scale(-1)", "Smaller", "A smaller box", _GROUP, "-"),
    Key(
        "crop.next", "n,pagedown", "step(1)", "Next", "Keep this crop and go to the next picture", _GROUP, footer=True
    ),
    Key("crop.before", "p,pageup", "step(-1)", "Before", "Keep this crop and go to the picture before", _GROUP),
    Key("crop.fine", "f", "fine", "Fine", "Steps of one pixel, or large ones again", _GROUP, footer=True),
    Key("crop.mask", "v", "mask", "Mask", "Show the picture's mask, or hide it", _GROUP),
    Key("crop.left", "left,h", "move(-1,0)", "Left", "Move the box to the left", _GROUP, palette=False),
    Key("crop.right", "right,l", "move(1,0)", "Right", "Move it to the right", _GROUP, palette=False),
    Key("crop.up", "up,k", "move(0,-1)", "Up", "Move it up", _GROUP, palette=False),
    Key("crop.down", "down,j", "move(0,1)", "Down", "Move it down", _GROUP, palette=False),
    Key("crop.narrower", "shift+left,H", "size(-1,0)", "Narrower", "A narrower box", _GROUP, palette=False),
    Key("crop.wider", "shift+right,L", "size(1,0)", "Wider", "A wider box", _GROUP, palette=False),
    Key("crop.lower", "shift+up,K", "size(0,-1)", "Lower", "A box of less height", _GROUP, palette=False),
    Key("crop.higher", "shift+down,J", "size(0,1)", "Higher", "A box of more height", _GROUP, palette=False),
)
