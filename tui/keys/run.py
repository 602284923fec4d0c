"""Keys of the panes that show a run: steering it, its plots, samples and log."""

from __future__ import annotations

from tui.keys.key import Key

RUN_KEYS: tuple[Key, ...] = (
    Key("run.start", "enter", "start", "Start", "Start a run, or go on with the one shown", "Run", footer=True),
    Key("run.pause", "space", "pause", "Pause", "Pause or resume after this step", "Run", footer=True),
    Key(
        "run.release", "P", "release", "Pause, free memory",
        "Pause and give the GPU's memory back", "Run", shown="P",
    ),
    Key("run.stop", "s", "stop", "Stop", "Stop: now, after an epoch, or cancel the plan", "Run", footer=True),
    Key("run.save", "S", "save", "Save", "Save the LoRA and the training state now", "Run", "S", True),
    Key("run.sample", "x", "sample", "Sample", "Draw the sample pictures now", "Run", footer=True),
    Key("run.losses", "L", "losses", "Losses",
        "Measure now how well each picture's caption fits; the worst are listed first", "Run", "L"),
    Key("run.tidy", "f", "tidy", "Free room", "Choose older files to remove from a full disk", "Run", footer=True),
    Key("run.epochs", "e", "epochs", "Epochs", "Curves, pictures and opinions by epoch, and which to take", "Run",
        footer=True),
    Key("view.smoothing", "m", "smoothing", "Smooth", "Change the smoothing of the loss curve", "View", footer=True),
    Key("view.shorter", "left_square_bracket", "range(1)", "Shorter range", "Show only the later half", "View", "["),
    Key("view.longer", "right_square_bracket", "range(-1)", "Longer range", "Show twice as much again", "View", "]"),
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
