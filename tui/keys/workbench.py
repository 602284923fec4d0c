"""Keys of the workbench as a whole: its panes, and the ways to the other screens."""

from __future__ import annotations

from tui.keys.key import Key

WORKBENCH_KEYS: tuple[Key, ...] = (
    Key("pane.1", "1", "pane(1)", "Dataset", "Go to the dataset", "Panes", palette=False),
    Key("pane.2", "2", "pane(2)", "Caption", "Go to the picture and its caption", "Panes", palette=False),
    Key("pane.3", "3", "pane(3)", "Training", "Go to the training", "Panes", palette=False),
    Key("pane.4", "4", "pane(4)", "Samples", "Go to the samples", "Panes", palette=False),
    Key("pane.5", "5", "pane(5)", "Log", "Go to the log", "Panes", palette=False),
    Key("view.log", "l", "log", "Log", "Go to the log, or back", "Panes"),
    Key("view.back", "escape", "back", "Back", "Leave the zoomed pane", "Panes", "esc", palette=False),
    Key("run.wizard", "w", "wizard", "Wizard", "Step by step to a run that fits here", "Workbench", footer=True),
    # n in the dataset pane is the next problem: the other key works everywhere.
    Key("run.new", "ctrl+n,n", "new", "New run", "Set up a run", "Workbench", "^n", True),
    Key("run.list", "r", "runs", "Runs", "Show all runs", "Workbench", footer=True),
    Key("view.zoom", "z", "zoom", "Zoom", "Show only this pane, or all again", "Panes", footer=True),
)
