"""Keys of the picture and caption pane. While a text is typed only ctrl, alt and function keys are commands."""

from __future__ import annotations

from tui.keys.key import Key

CAPTION_KEYS: tuple[Key, ...] = (
    Key("caption.next", "alt+down", "step(1)", "Next picture", "Go to the next picture and stay here", "Caption",
        "alt+down", True),
    Key("caption.previous", "alt+up", "step(-1)", "Previous picture", "Go to the picture before and stay here",
        "Caption", "alt+up"),
    Key("caption.trigger", "ctrl+t", "trigger", "Trigger word", "Put the trigger word in front, or take it away",
        "Caption", "^t", True),
    Key("caption.suggest", "f2", "suggest", "Trigger words", "What is wrong with the trigger word over the whole "
        "dataset, and words that suit as one", "Caption"),
    Key("caption.template", "f5", "template", "Template", "Put a sentence with slots there; tab goes from slot to "
        "slot", "Caption"),
    Key("caption.reminder", "f3", "reminder", "What to describe", "What a recipe says to describe and to leave "
        "out; again for the next recipe", "Caption"),
    Key("caption.misspelt", "f9", "misspelt", "Misspelt", "The next word that no word list knows", "Caption"),
    Key("caption.add_word", "ctrl+r", "add_word", "Right word", "The word at the cursor is right: keep it in your "
        "own list", "Caption", "^r"),
    Key("caption.editor", "f4", "editor", "$EDITOR", "Edit this caption in the program that $VISUAL or $EDITOR "
        "names", "Caption"),
    Key("caption.save", "ctrl+s", "save", "Save", "Write the caption now; captions are saved by themselves too",
        "Caption", "^s"),
    Key("caption.out", "escape", "out", "Dataset", "Back to the dataset", "Caption", "esc", True, False),
)  # fmt: skip


def _edit(name: str, keys: str, action: str, label: str) -> Key:
    return Key(f"edit.{name}", keys, action, label, label, "Caption text", palette=False)


EDITOR_KEYS: tuple[Key, ...] = (
    _edit("undo", "ctrl+z,ctrl+underscore,super+z", "undo", "Undo"),
    _edit("redo", "ctrl+y,super+y", "redo", "Redo"),
    _edit("complete", "tab", "complete", "Take what is offered, or go to the next slot"),
    _edit("left", "left", "cursor_left", "Left"),
    _edit("right", "right", "cursor_right", "Right"),
    _edit("up", "up", "cursor_up", "Up"),
    _edit("down", "down", "cursor_down", "Down"),
    _edit("word_left", "ctrl+left,alt+left", "cursor_word_left", "One word left"),
    _edit("word_right", "ctrl+right,alt+right", "cursor_word_right", "One word right"),
    _edit("line_start", "home,ctrl+a", "cursor_line_start", "Start of the line"),
    _edit("line_end", "end,ctrl+e", "cursor_line_end", "End of the line"),
    _edit("page_up", "pageup", "cursor_page_up", "One page up"),
    _edit("page_down", "pagedown", "cursor_page_down", "One page down"),
    _edit("select_left", "shift+left", "cursor_left(True)", "Select to the left"),
    _edit("select_right", "shift+right", "cursor_right(True)", "Select to the right"),
    _edit("select_up", "shift+up", "cursor_up(True)", "Select upwards"),
    _edit("select_down", "shift+down", "cursor_down(True)", "Select downwards"),
    _edit("select_word_left", "ctrl+shift+left", "cursor_word_left(True)", "Select the word on the left"),
    _edit("select_word_right", "ctrl+shift+right", "cursor_word_right(True)", "Select the word on the right"),
    _edit("select_line_start", "shift+home", "cursor_line_start(True)", "Select to the line's start"),
    _edit("select_line_end", "shift+end", "cursor_line_end(True)", "Select to the line's end"),
    _edit("select_line", "f6", "select_line", "Select the line"),
    _edit("select_all", "f7", "select_all", "Select everything"),
    _edit("delete_left", "backspace", "delete_left", "Delete to the left"),
    _edit("delete_right", "delete,ctrl+d", "delete_right", "Delete to the right"),
    _edit(
        "delete_word_left", "ctrl+w,alt+backspace,ctrl+backspace", "delete_word_left", "Delete the word on the left"
    ),
    _edit("delete_word_right", "alt+delete", "delete_word_right", "Delete the word on the right"),
    _edit("delete_line_start", "ctrl+u", "delete_to_start_of_line", "Delete to the line's start"),
    _edit("delete_line_end", "ctrl+k", "delete_to_end_of_line_or_delete_line", "Delete to the line's end"),
    _edit("copy", "ctrl+c,super+c", "copy", "Copy what is selected"),
    _edit("cut", "ctrl+x,super+x", "cut", "Cut what is selected, or the line"),
    _edit("paste", "ctrl+v,super+v", "paste", "Paste what was copied here"),
)
