"""Keys of the epochs screen, of what it opens, and of the dialogs over it."""

from __future__ import annotations

from tui.keys.key import Key

_GROUP = "Epochs"


def _stars(count: int) -> Key:
    words = ("No star", "One star", "Two stars", "Three stars", "Four stars", "Five stars")[count]
    return Key(f"epochs.stars_{count}", str(count), f"stars({count})", words, words, _GROUP, palette=False)


EPOCHS_KEYS: tuple[Key, ...] = (
    Key("epochs.pane", "tab", "pane(1)", "Next part", "Curves, table, pictures: the next of them", _GROUP, "tab",
        True, palette=False),
    Key("epochs.compare", "enter", "compare", "Two", "Look at two epochs: this one, and the marked or best one",
        _GROUP, footer=True),
    Key("epochs.use", "u", "use", "Use", "Take this epoch's LoRA along, and see how it is used", _GROUP, footer=True),
    Key("epochs.blind", "b", "blind", "Blind", "Compare pictures without knowing their epochs", _GROUP, footer=True),
    Key("epochs.blend", "B", "blend", "Blend", "Average several epochs' files into one", _GROUP, "B"),
    Key("epochs.signal", "c", "signal", "Curve", "The next curve: loss, noise levels, drift, update", _GROUP,
        footer=True),
    Key("epochs.more", "plus,equals_sign", "more(1)", "Star", "One star more; 0 to 5 give so many", _GROUP, "+",
        True),
    Key("epochs.note", "n", "note", "Note", "Write a note on this epoch", _GROUP, footer=True),
    Key("epochs.form", "v", "form", "Verdict", "Answer three questions about this epoch", _GROUP, footer=True),
    Key("epochs.strengths", "s", "strengths", "Strengths", "One prompt over strengths, or all prompts again", _GROUP,
        footer=True),
    Key("epochs.own", "t", "own(1)", "Training", "The next of the dataset's pictures beside the samples", _GROUP,
        footer=True),
    Key("epochs.mark", "space", "mark", "Mark", "Mark this epoch as the one to compare with", _GROUP, footer=True),
    Key("epochs.advised", "a", "advised", "Advised", "Go to the advised epoch", _GROUP, footer=True),
    Key("epochs.zoom", "z", "zoom", "Zoom", "Show only this part, or all again", _GROUP, footer=True),
    Key("epochs.less", "minus", "more(-1)", "Less", "One star less", _GROUP, "-"),
    Key("epochs.own_back", "T", "own(-1)", "Training before", "The dataset's pictures before those", _GROUP, "T"),
    Key("epochs.pane_back", "shift+tab", "pane(-1)", "Part before", "The one before", _GROUP, palette=False),
    Key("epochs.copy", "y", "copy", "Copy path", "Copy the path of this epoch's file", _GROUP),
    Key("epochs.refresh", "R", "refresh", "Refresh", "Look again at files and opinions", _GROUP, "R"),
    *(_stars(count) for count in range(6)),
    Key("epochs.next", "right,j,l", "step(1)", "Later", "The next epoch", _GROUP, palette=False),
    Key("epochs.previous", "left,k,h", "step(-1)", "Earlier", "The epoch before", _GROUP, palette=False),
    Key("epochs.down", "down", "line(1)", "Down", "The next prompt; in the table the next epoch", _GROUP,
        palette=False),
    Key("epochs.up", "up", "line(-1)", "Up", "The prompt before; in the table the epoch before", _GROUP,
        palette=False),
    Key("epochs.page_down", "pagedown,ctrl+d", "step(10)", "Ten on", "Ten epochs on", _GROUP, palette=False),
    Key("epochs.page_up", "pageup,ctrl+u", "step(-10)", "Ten back", "Ten epochs back", _GROUP, palette=False),
    Key("epochs.first", "home,g", "edge(0)", "First", "The base model", _GROUP, palette=False),
    Key("epochs.last", "end,G", "edge(1)", "Last", "The last epoch", _GROUP, palette=False),
    Key("epochs.back", "escape", "back", "Back", "Out of the note or the zoom, else leave", _GROUP, "esc", True,
        False),
)  # fmt: skip

PAIR_KEYS: tuple[Key, ...] = (
    Key("pair.flip", "space,f", "flip", "Flip", "The other picture in the same place", "Two epochs", footer=True),
    Key("pair.beside", "enter,s", "beside", "Side by side", "Both side by side, or one place for both", "Two epochs",
        footer=True),
    Key("pair.next", "right,j,l", "step(1)", "Later", "The second picture one epoch later", "Two epochs",
        "right", True, palette=False),
    Key("pair.previous", "left,k,h", "step(-1)", "Earlier", "The second picture one epoch earlier", "Two epochs",
        palette=False),
    Key("pair.down", "down", "line(1)", "Next prompt", "The next prompt", "Two epochs", "down", True, palette=False),
    Key("pair.up", "up", "line(-1)", "Prompt before", "The prompt before", "Two epochs", palette=False),
    Key("pair.own", "t", "own(1)", "Training", "A training picture in the place of A, the next one each time",
        "Two epochs", footer=True),
    Key("pair.own_back", "T", "own(-1)", "Training before", "The training picture before, then the epoch again",
        "Two epochs", "T"),
    Key("pair.swap", "x", "swap", "Swap", "Hold the second picture, and change the first", "Two epochs",
        footer=True),
    Key("pair.back", "escape", "back", "Back", "Back to the epochs", "Two epochs", "esc", True, False),
)  # fmt: skip

BLIND_KEYS: tuple[Key, ...] = (
    Key("blind.one", "1,left", "answer('1')", "Left", "The picture at the left is better", "Blind comparison", "1",
        True),
    Key("blind.two", "2,right", "answer('2')", "Right", "The picture at the right is better", "Blind comparison", "2",
        True),
    Key("blind.same", "equals_sign,s", "answer('same')", "Same", "Neither is better: counted, nobody wins",
        "Blind comparison", "=", True),
    Key("blind.skip", "space,n", "answer('')", "Skip", "The next pair; this one is not counted", "Blind comparison",
        "space", True),
    Key("blind.undo", "backspace", "undo", "Undo", "Take the last answer back", "Blind comparison", footer=True),
    Key("blind.again", "r", "again", "Again", "Another round, when one is over", "Blind comparison", footer=True),
    Key("blind.back", "escape", "back", "Back", "End the round: what was answered counts", "Blind comparison", "esc",
        True, False),
)  # fmt: skip


def _key(name: str, keys: str, action: str, label: str, group: str, priority: bool = False) -> Key:
    return Key(name, keys, action, label, label, group, palette=False, priority=priority)


VERDICT_KEYS: tuple[Key, ...] = (
    _key("verdict.keep", "enter", "keep", "Keep the answers", "Verdict", True),
    _key("verdict.yes", "y", "say('yes')", "Answer yes, and go on to the next", "Verdict"),
    _key("verdict.partly", "p", "say('partly')", "Answer partly", "Verdict"),
    _key("verdict.no", "n", "say('no')", "Answer no", "Verdict"),
    _key("verdict.none", "delete,backspace", "say('')", "Take the answer back", "Verdict"),
    _key("verdict.down", "down,tab,j", "move(1)", "The next question", "Verdict"),
    _key("verdict.up", "up,shift+tab,k", "move(-1)", "The question before", "Verdict"),
)

TAKE_KEYS: tuple[Key, ...] = (
    _key("take.list", "f4", "list", "Choose from the folders found", "Take along", True),
    _key("take.keep", "enter", "keep", "Copy the file there", "Take along", True),
)

USAGE_KEYS: tuple[Key, ...] = (
    _key("usage.copy", "y", "copy('text')", "Copy all of it", "How it is used"),
    _key("usage.forge", "f", "copy('forge')", "Copy the line for Forge", "How it is used"),
    _key("usage.diffusers", "d", "copy('diffusers')", "Copy the code for diffusers", "How it is used"),
    _key("usage.path", "p", "copy('path')", "Copy the file's path", "How it is used"),
    _key("usage.close", "enter,q", "close", "Close", "How it is used"),
)
