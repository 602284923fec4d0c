"""Keys of the wizard; as in the setup form none is a single letter, because fields take text."""

from __future__ import annotations

from tui.keys.key import Key

WIZARD_KEYS: tuple[Key, ...] = (
    # Taken before any field: the way through the pages is the same in a text of several lines.
    Key("wizard.next", "pagedown", "turn(1)", "Next", "The next page", "Wizard", "pgdn", True, priority=True),
    Key("wizard.previous", "pageup", "turn(-1)", "Back", "The page before", "Wizard", "pgup", True, priority=True),
    Key("wizard.preview", "f2", "preview", "Plan", "Show memory, time and TOML, or the page again", "Wizard",
        "F2", True),
    Key("wizard.start", "f5", "start", "Start", "Write the configuration and start training", "Wizard", "F5", True),
    Key("wizard.pilot", "f9", "pilot", "Pilot", "Start a pilot run of a few minutes first", "Wizard", "F9", True),
    Key("wizard.form", "f3", "form", "All", "Show all of it on one screen, as a form", "Wizard", "F3", True),
    Key("wizard.list", "f4", "list", "List", "Choose from what there is for this field", "Wizard", "F4", True),
    Key("wizard.folders", "f6", "folders", "Folders", "Lay out image, log and model folders, with example pictures",
        "Wizard", "F6", True),
    Key("wizard.next_problem", "f7", "problem", "Problem", "Go to the next field to mend", "Wizard", "F7", True),
    Key("wizard.give_all_back", "ctrl+g", "give_all_back", "All chosen",
        "Have every setting chosen for the machine again", "Wizard", "^g"),
    Key("wizard.write", "ctrl+s", "write", "Write", "Write the configuration, start nothing", "Wizard", "^s"),
    Key("wizard.anew", "ctrl+n", "anew", "Anew", "Forget what is typed and begin anew", "Wizard", "^n"),
    Key("wizard.back", "escape", "back", "Leave", "Leave the wizard; all of it is kept", "Wizard", "esc", True,
        False),
)  # fmt: skip

VALUE_KEYS: tuple[Key, ...] = (
    Key("field.give_back", "delete,backspace", "give_back", "Give back",
        "Have this setting chosen for the machine again", "Field", "del", True, False),
)  # fmt: skip

ACT_KEYS: tuple[Key, ...] = (
    Key("act.press", "enter,space", "press", "Press", "Do what the button says", "Field", palette=False),
)
