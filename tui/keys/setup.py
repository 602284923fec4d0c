"""Keys of the setup form; none is a single letter, because most of its fields take text."""

from __future__ import annotations

from tui.keys.key import Key

SETUP_KEYS: tuple[Key, ...] = (
    Key("setup.start", "f5", "start", "Start", "Write the configuration and start training", "Setup", "F5", True),
    Key("setup.write", "ctrl+s", "write", "Write", "Write the configuration, start nothing", "Setup", "^s", True),
    Key(
        "setup.preview", "f2", "preview", "TOML", "Show the configuration as it is written, or the form again",
        "Setup", "F2", True,
    ),
    Key("setup.wizard", "f3", "wizard", "Wizard", "Show the same step by step, with what fits this machine", "Setup",
        "F3", True),
    Key("setup.list", "f4", "list", "List", "Choose from what was found for this field", "Setup", "F4", True),
    Key(
        "setup.folders", "f6", "folders", "Folders", "Lay out image, log and model folders, with example pictures",
        "Setup", "F6", True,
    ),
    Key(
        "setup.prompts", "f9", "prompts", "Prompts", "Write sample prompts from the captions of the dataset folder",
        "Setup", "F9",
    ),
    Key("setup.anew", "ctrl+n", "anew", "Anew", "Forget what is typed and begin anew", "Setup", "^n"),
    Key("setup.next_problem", "f7", "problem", "Problem", "Go to the next field to mend", "Setup", "F7"),
    Key("setup.back", "escape", "back", "Back", "Leave the form; what is typed is kept", "Setup", "esc", True, False),
)  # fmt: skip


def _field(name: str, keys: str, action: str, words: str) -> Key:
    return Key(f"field.{name}", keys, action, words, words, "Field", palette=False)


FIELD_KEYS: tuple[Key, ...] = (
    _field("up", "up", "app.focus_previous", "The field before"),
    _field("down", "down", "app.focus_next", "The next field"),
)

CHOICE_KEYS: tuple[Key, ...] = (
    _field("previous", "left,h", "step(-1)", "The choice before"),
    _field("next", "right,l,space", "step(1)", "The next choice"),
    _field("pick", "enter", "pick", "Show all choices"),
)
