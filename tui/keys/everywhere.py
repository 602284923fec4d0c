"""Keys that work wherever nothing asks a question: help, commands, jumping, leaving."""

from __future__ import annotations

from tui.keys.key import Key

EVERYWHERE_KEYS: tuple[Key, ...] = (
    Key(
        "app.help", "question_mark,f1", "help", "Help", "What works here, and what to do about trouble",
        "Everywhere", "?", True,
    ),
    Key("app.palette", "ctrl+p,colon", "command_palette", "Commands", "Find a command by its words", "Everywhere",
        "^p", True, False),
    Key("app.jump", "ctrl+o", "jump", "Jump", "Go to any part of the screen by a letter", "Everywhere", "^o"),
    Key("app.theme", "f8", "next_theme", "Theme", "The next theme, kept for terminals of many colours", "Everywhere"),
    Key("app.repaint", "ctrl+l", "repaint", "Repaint", "Draw the whole screen again", "Everywhere", "^l"),
    Key("app.interrupt", "ctrl+c", "interrupt", "Interrupt", "Copy what is selected; else say how to stop or leave",
        "Everywhere", "^c", palette=False),
    # Taken before any field: the way out must be the same everywhere, and ctrl+z undoes where text is typed.
    Key("app.detach", "ctrl+backslash", "detach", "Detach", "Give the terminal back; all goes on without it",
        "Everywhere", "^\\", True, priority=True),
    Key("app.no_suspend", "ctrl+z", "name_detach", "ctrl+z", "Undoes where text is typed; elsewhere names the key "
        "that detaches", "Everywhere", "^z", palette=False),
    Key("app.leave", "q,ctrl+q", "leave", "Leave", "Leave; asks what to do with a live run", "Everywhere", "q", True),
)  # fmt: skip
