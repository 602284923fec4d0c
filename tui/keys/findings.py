"""Keys of the screen with what is wrong with a dataset."""

from __future__ import annotations

from tui.keys.key import Key

_GROUP = "Findings"

FINDINGS_KEYS: tuple[Key, ...] = (
    Key("findings.open", "enter", "open", "Picture", "Go to the picture", _GROUP, footer=True),
    Key("findings.fix", "f", "fix", "Mend", "Mend what is wrong with this picture, after a question", _GROUP,
        footer=True),
    Key("findings.fix_all", "F", "fix_all", "Mend all", "Mend all pictures of this finding, after a question", _GROUP,
        "F", True),
    Key("findings.exclude", "x", "exclude", "Leave out", "Leave the picture out of training, or take it back", _GROUP,
        footer=True),
    Key("findings.undo", "u,ctrl+z", "undo", "Undo", "Take the last mending back", _GROUP, footer=True),
    Key("findings.upscale", "p", "outside('upscale')", "Upscale", "Run your upscaler on a copy", _GROUP),
    Key("findings.background", "b", "outside('background')", "Background", "Run your background remover on a copy",
        _GROUP),
    Key("findings.cancel", "c", "cancel", "Cancel", "End the program that runs", _GROUP, footer=True),
    Key("findings.refresh", "R", "refresh", "Look again", "Check the dataset again", _GROUP, "R"),
    Key("findings.down", "j", "move(1)", "Down", "The next line", _GROUP, palette=False),
    Key("findings.up", "k", "move(-1)", "Up", "The line before", _GROUP, palette=False),
    Key("findings.back", "escape", "back", "Back", "Back to the dataset", _GROUP, "esc", True, False),
)  # fmt: skip
