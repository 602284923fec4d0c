"""Every key of the run screen in one table: bindings, footer, palette and help are made from it.

Each row has an id, so that a user's settings can give it other keys (Textual's ``App.set_keymap``). Single letters
are for the screen; nothing that matters is bound to a key that plain terminals confuse (ctrl+m, ctrl+i, ctrl+h).
"""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding, BindingType


@dataclass(frozen=True)
class Key:
    """One command of the screen: the keys that reach it, its action, and how it is called in footer and help."""

    id: str
    keys: str
    action: str
    label: str
    help: str
    group: str
    shown: str = ""
    """How the key is written; the first of ``keys`` when empty."""
    footer: bool = False
    palette: bool = True

    @property
    def display(self) -> str:
        """The key as written in footer and help."""
        return self.shown or self.keys.split(",")[0]


RUN_KEYS: tuple[Key, ...] = (
    Key("run.pause", "space", "pause", "Pause", "Pause or resume after this step", "Run", footer=True),
    Key(
        "run.release", "P,shift+p", "release", "Pause, free memory",
        "Pause and give the GPU's memory back", "Run", shown="P",
    ),
    Key("run.stop", "s", "stop", "Stop", "Stop: now, after an epoch, or cancel the plan", "Run", footer=True),
    Key("run.save", "S,shift+s", "save", "Save", "Save the LoRA and the training state now", "Run", "S", True),
    Key("run.sample", "x", "sample", "Sample", "Draw the sample pictures now", "Run", footer=True),
    Key("view.smoothing", "m", "smoothing", "Smooth", "Change the smoothing of the loss curve", "View", footer=True),
    Key("view.shorter", "left_square_bracket", "range(1)", "Shorter range", "Show only the later half", "View", "["),
    Key("view.longer", "right_square_bracket", "range(-1)", "Longer range", "Show twice as much again", "View", "]"),
    Key("view.zoom", "z", "zoom", "Zoom", "Show only this pane, or all again", "View", footer=True),
    Key("view.back", "escape", "back", "Back", "Leave the zoomed pane", "View", "esc", palette=False),
    Key("view.log", "l", "log", "Log", "Go to the log, or back", "View"),
    Key("pane.1", "1", "pane(1)", "Loss", "Go to the loss", "Panes", palette=False),
    Key("pane.2", "2", "pane(2)", "Figures", "Go to learning rate, memory and times", "Panes", palette=False),
    Key("pane.3", "3", "pane(3)", "Samples", "Go to the samples", "Panes", palette=False),
    Key("pane.4", "4", "pane(4)", "Log", "Go to the log", "Panes", palette=False),
    Key("app.help", "question_mark,f1", "help", "Help", "Show all keys", "Kiln", "?", True),
    Key("app.palette", "ctrl+p,colon", "app.command_palette", "Find", "Find a command", "Kiln", "^p", False, False),
    Key("app.repaint", "ctrl+l", "repaint", "Repaint", "Draw the whole screen again", "Kiln", "^l"),
    Key("app.leave", "q,ctrl+q", "leave", "Leave", "Leave; asks what to do with a live run", "Kiln", "q", True),
)  # fmt: skip

SAMPLE_KEYS: tuple[Key, ...] = (
    Key("samples.previous", "left", "walk(-1)", "Previous", "The sample before", "Samples pane", palette=False),
    Key("samples.next", "right", "walk(1)", "Next", "The next sample", "Samples pane", palette=False),
    Key(
        "samples.earlier",
        "up",
        "epoch(-1)",
        "Earlier",
        "Same prompt, one epoch earlier",
        "Samples pane",
        palette=False,
    ),
    Key("samples.later", "down", "epoch(1)", "Later", "Same prompt, one epoch later", "Samples pane", palette=False),
    Key("samples.newest", "end", "newest", "Newest", "Follow the newest sample", "Samples pane", palette=False),
    Key("samples.large", "enter", "large", "Large", "Show the picture large", "Samples pane", palette=False),
)

LOG_KEYS: tuple[Key, ...] = (
    Key("log.up", "up,k", "scroll(1)", "Up", "One line up", "Log pane", palette=False),
    Key("log.down", "down,j", "scroll(-1)", "Down", "One line down", "Log pane", palette=False),
    Key("log.page_up", "pageup", "page(1)", "Page up", "One page up", "Log pane", palette=False),
    Key("log.page_down", "pagedown", "page(-1)", "Page down", "One page down", "Log pane", palette=False),
    Key("log.first", "home", "first", "First", "The first line kept", "Log pane", palette=False),
    Key("log.last", "end", "last", "Last", "Follow the newest line", "Log pane", palette=False),
)

ALL_KEYS = RUN_KEYS + SAMPLE_KEYS + LOG_KEYS


def bindings(keys: tuple[Key, ...]) -> list[BindingType]:
    """Textual bindings of a table's rows, in its order."""
    return [
        Binding(
            key.keys, key.action, key.label, show=key.footer, key_display=key.display, tooltip=key.help, id=key.id
        )
        for key in keys
    ]
