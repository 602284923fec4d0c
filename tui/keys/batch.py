"""Keys of the screens that change many captions: find and replace, words and tags."""

from __future__ import annotations

from tui.keys.key import Key

_REPLACE, _LIST, _WORDS = "Many captions", "Changes", "Words and tags"

REPLACE_KEYS: tuple[Key, ...] = (
    Key("replace.apply", "f5,ctrl+s", "apply", "Change", "Change the captions that are ticked", _REPLACE, "F5", True),
    Key("replace.list", "f4", "list", "Operations", "Choose what to do from a list", _REPLACE, "F4", True),
    Key("replace.back", "escape", "back", "Back", "Stop, or back to the dataset; nothing is changed", _REPLACE, "esc",
        True, False),
)  # fmt: skip

CHANGE_KEYS: tuple[Key, ...] = (
    Key("ticks.tick", "space,enter", "tick", "Tick", "Change this caption, or leave it as it is", _LIST, "space",
        True),
    Key("ticks.all", "a", "tick_all", "All, none", "Tick all, or none", _LIST, footer=True),
    Key("ticks.up", "up,k", "move(-1)", "Up", "The change before", _LIST, palette=False),
    Key("ticks.down", "down,j", "move(1)", "Down", "The next change", _LIST, palette=False),
    Key("ticks.page_up", "pageup", "page(-1)", "Page up", "One page up", _LIST, palette=False),
    Key("ticks.page_down", "pagedown", "page(1)", "Page down", "One page down", _LIST, palette=False),
    Key("ticks.first", "home,g", "end(0)", "First", "The first change", _LIST, palette=False),
    Key("ticks.last", "end,G", "end(-1)", "Last", "The last change", _LIST, "G", palette=False),
)  # fmt: skip

WORDS_KEYS: tuple[Key, ...] = (
    Key("words.rename", "r", "rename", "Rename", "Write something else in its place", _WORDS, footer=True),
    Key("words.remove", "d", "remove", "Remove", "Take it out of every caption", _WORDS, footer=True),
    Key("words.tags", "t", "tags", "Tags, words", "Count tags, or words in a row", _WORDS, footer=True),
    Key("words.counts", "c", "counts", "Counts", "All, in every caption, in only one", _WORDS, footer=True),
    Key("words.find", "slash", "find", "Find", "Only what holds these letters", _WORDS, "/", True),
    Key("words.back", "escape", "back", "Back", "Back to the dataset", _WORDS, "esc", True, False),
)  # fmt: skip

WORD_LIST_KEYS: tuple[Key, ...] = (
    Key("counts.show", "enter", "screen.show", "Show", "Show the pictures whose captions hold it", _WORDS, "enter",
        True),
    Key("counts.up", "up,k", "move(-1)", "Up", "The one before", _WORDS, palette=False),
    Key("counts.down", "down,j", "move(1)", "Down", "The next", _WORDS, palette=False),
    Key("counts.page_up", "pageup", "page(-1)", "Page up", "One page up", _WORDS, palette=False),
    Key("counts.page_down", "pagedown", "page(1)", "Page down", "One page down", _WORDS, palette=False),
    Key("counts.first", "home,g", "end(0)", "First", "The first", _WORDS, palette=False),
    Key("counts.last", "end,G", "end(-1)", "Last", "The last", _WORDS, "G", palette=False),
)  # fmt: skip
