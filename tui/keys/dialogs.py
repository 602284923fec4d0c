"""Keys of what lies over the screens: dialogs, help, jump letters."""

from __future__ import annotations

from tui.keys.key import Key


def _key(name: str, keys: str, action: str, label: str, group: str, priority: bool = False) -> Key:
    return Key(name, keys, action, label, label, group, palette=False, priority=priority)


DIALOG_KEYS: tuple[Key, ...] = (
    _key("dialog.close", "escape", "close", "Back, nothing is changed", "Dialogs"),
    _key("dialog.interrupt", "ctrl+c", "app.interrupt", "Say how to stop and how to leave", "Dialogs"),
    _key("dialog.repaint", "ctrl+l", "app.repaint", "Draw the whole screen again", "Dialogs"),
)

REMOVE_KEYS: tuple[Key, ...] = (
    _key("remove.mark", "space", "mark", "Mark this file, or take the mark back", "Files to remove", True),
    _key("remove.mark_all", "a", "mark_all", "Mark all, or none", "Files to remove"),
)

ERROR_KEYS: tuple[Key, ...] = (
    _key("error.accept", "enter,space,q", "close", "Close the error", "Errors"),
    _key("error.copy", "y", "copy", "Copy the error to the clipboard", "Errors"),
    _key("error.guide", "question_mark,f1", "guide", "Open the guide to trouble, where it tells of it", "Errors"),
)

CHANGES_KEYS: tuple[Key, ...] = (
    _key("changes.accept", "enter", "accept", "Go on with the run as it is now", "Changes since"),
)

HELP_KEYS: tuple[Key, ...] = (
    _key("help.close", "q,question_mark,f1", "close", "Close the help", "Help"),
    _key("help.keys", "1", "page(1)", "What works here", "Help"),
    _key("help.trouble", "2", "page(2)", "The guide to trouble", "Help"),
    _key("help.curve", "3", "page(3)", "How to read the curve", "Help"),
    _key("help.terminal", "4", "page(4)", "What the terminal can do", "Help"),
    _key("help.filter", "5", "page(5)", "What the dataset's filter understands", "Help"),
    _key("help.previous", "left,h", "turn(-1)", "The page before", "Help"),
    _key("help.next", "right,l,tab", "turn(1)", "The next page", "Help"),
    _key("help.down", "down,j", "move(1)", "Down", "Help"),
    _key("help.up", "up,k", "move(-1)", "Up", "Help"),
    _key("help.page_down", "pagedown,ctrl+d", "leaf(1)", "A page down", "Help", True),
    _key("help.page_up", "pageup,ctrl+u", "leaf(-1)", "A page up", "Help", True),
    _key("help.apply", "enter,a", "apply", "Open the setup form with the remedy's changes", "Help"),
)

JUMP_KEYS: tuple[Key, ...] = (_key("jump.close", "escape,ctrl+o", "close", "Stay where you were", "Jumping"),)
