"""Keys of the dataset's table and of the filter above it."""

from __future__ import annotations

from tui.keys.key import Key
from tui.keys.machine import MACHINE_KEYS

_GROUP = "Dataset pane"

DATASET_KEYS: tuple[Key, ...] = (
    Key("dataset.edit", "enter,e", "edit", "Caption", "Edit this picture's caption", _GROUP, "enter", True),
    Key("dataset.filter", "slash", "filter", "Filter", "Show only what holds these words", _GROUP, "/", True),
    Key("dataset.sort", "o", "sort", "Sort", "Sort by the next column", _GROUP, footer=True),
    Key("dataset.reverse", "O", "reverse", "Reverse", "Turn the order round", _GROUP, "O"),
    Key("dataset.more", "plus,equals_sign", "stars(1)", "Star", "One star more", _GROUP, "+", True),
    Key("dataset.less", "minus", "stars(-1)", "Less", "One star less", _GROUP, "-"),
    Key("dataset.problem", "n", "problem(1)", "Problem", "Next picture with something wrong", _GROUP, footer=True),
    Key("dataset.problem_back", "N", "problem(-1)", "Problem before", "The one before", _GROUP, "N"),
    Key("dataset.mark", "m", "mark", "Mark", "Mark this picture or unmark it, and go on", _GROUP),
    Key("dataset.mark_range", "M", "mark_range", "Mark to here", "Mark from the last mark to here", _GROUP, "M"),
    Key("dataset.mark_found", "ctrl+a", "mark_found", "Mark found", "Mark all that are listed", _GROUP, "^a"),
    Key("dataset.unmark", "U", "unmark", "Unmark", "Take all marks away", _GROUP, "U"),
    *MACHINE_KEYS,
    Key("dataset.replace", "f", "replace", "Replace", "Change many captions at once", _GROUP, footer=True),
    Key("dataset.words", "t", "words", "Words", "Words and tags, and how often they are there", _GROUP, footer=True),
    Key("dataset.undo", "ctrl+z", "undo_batch(True)", "Undo", "Take the last change of captions back", _GROUP, "^z"),
    Key("dataset.redo", "ctrl+y", "undo_batch(False)", "Redo", "Make the change again", _GROUP, "^y"),
    Key("dataset.crop", "c", "crop", "Crop", "Crop this picture", _GROUP, footer=True),
    Key("dataset.exclude", "X", "exclude", "Exclude", "Keep out of training, or take in again", _GROUP, "X", True),
    Key("dataset.repeats_more", "right_square_bracket", "repeats(1)", "Oftener", "Once more an epoch", _GROUP, "]"),
    Key("dataset.repeats_less", "left_square_bracket", "repeats(-1)", "Less often", "Once less", _GROUP, "["),
    Key("dataset.mask", "v", "mask", "Masks", "Show masks over pictures, or hide them", _GROUP),
    Key("dataset.large", "p", "large", "Large", "Show this picture large, with zoom", _GROUP),
    Key("dataset.copy", "y", "copy", "Copy path", "Copy the picture's path to the clipboard", _GROUP),
    Key("dataset.findings", "C", "findings", "Check", "What is wrong with the dataset, and mending it", _GROUP, "C"),
    Key("dataset.balance", "b", "balance", "Balance", "How often an epoch shows each folder", _GROUP),
    Key("dataset.refresh", "R", "refresh", "Look again", "Look at the folder again", _GROUP, "R"),
    Key("dataset.up", "up,k", "move(-1)", "Up", "The picture before", _GROUP, palette=False),
    Key("dataset.down", "down,j", "move(1)", "Down", "The next picture", _GROUP, palette=False),
    Key("dataset.page_up", "pageup", "page(-1.0)", "Page up", "One page up", _GROUP, palette=False),
    Key("dataset.page_down", "pagedown", "page(1.0)", "Page down", "One page down", _GROUP, palette=False),
    Key("dataset.half_up", "ctrl+u", "page(-0.5)", "Half up", "Half a page up", _GROUP, "^u", palette=False),
    Key("dataset.half_down", "ctrl+d", "page(0.5)", "Half down", "Half a page down", _GROUP, "^d", palette=False),
    Key("dataset.first", "g,home", "end(0)", "First", "The first picture", _GROUP, palette=False),
    Key("dataset.last", "G,end", "end(-1)", "Last", "The last picture", _GROUP, "G", palette=False),
    Key("dataset.all", "escape", "all", "Show all", "Show all pictures again", _GROUP, "esc", palette=False),
)

FILTER_KEYS: tuple[Key, ...] = (
    Key("filter.done", "enter", "done", "Done", "To the pictures found", "Dataset filter", "", True, False),
    Key("filter.clear", "escape", "clear", "Clear", "Clear, then leave", "Dataset filter", "esc", True, False),
)
