"""Keys of the runs screen and of the comparison."""

from __future__ import annotations

from tui.keys.key import Key

RUNS_KEYS: tuple[Key, ...] = (
    Key("runs.open", "enter", "open", "Open", "Show the run in the workbench", "Runs", footer=True),
    Key("runs.resume", "r", "resume", "Resume", "Go on with a run that stopped or broke off", "Runs", footer=True),
    Key("runs.duplicate", "d", "duplicate", "Duplicate", "Set up a new run with its settings", "Runs", footer=True),
    Key("runs.mark", "space", "mark", "Mark", "Mark the run for a comparison", "Runs", footer=True),
    Key("runs.compare", "c", "compare", "Compare", "Compare the marked runs, up to six, or the one with this", "Runs",
        footer=True),
    Key("runs.report", "w", "report", "Write report", "Write its report, one HTML file, into its folder", "Runs"),
    Key("runs.copy", "y", "copy", "Copy path", "Copy the path of its newest LoRA, or of its folder", "Runs"),
    Key("runs.epochs", "e", "epochs", "Epochs", "Its epochs: curves, pictures, and which to take", "Runs",
        footer=True),
    Key("runs.filter", "slash", "filter", "Filter", "Show only runs with these words", "Runs", "/", True),
    Key("runs.refresh", "R", "refresh", "Refresh", "Look again at what is there", "Runs", "R"),
    Key("runs.down", "down,j", "move(1)", "Down", "The next run", "Runs", palette=False),
    Key("runs.up", "up,k", "move(-1)", "Up", "The run before", "Runs", palette=False),
    Key("runs.page_down", "pagedown,ctrl+d", "page(1)", "Page down", "A page down", "Runs", palette=False),
    Key("runs.page_up", "pageup,ctrl+u", "page(-1)", "Page up", "A page up", "Runs", palette=False),
    Key("runs.first", "home,g", "edge(0)", "First", "The first run", "Runs", palette=False),
    Key("runs.last", "end,G", "edge(1)", "Last", "The last run", "Runs", palette=False),
    Key("runs.back", "escape", "back", "Back", "Leave the filter, then the screen", "Runs", "esc", True, False),
)  # fmt: skip

COMPARE_KEYS: tuple[Key, ...] = (
    Key(
        "compare.curves",
        "m",
        "curves",
        "Curves",
        "Held-out loss over epochs, over steps, or the training loss",
        "Comparison",
        footer=True,
    ),
    Key("compare.back", "escape,q,c", "back", "Back", "Back to the runs", "Comparison", "esc", True, False),
)
