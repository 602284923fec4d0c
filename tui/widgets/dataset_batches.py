"""What the dataset pane's keys ask for about many captions at once; the screen around the pane does it."""

from __future__ import annotations

from textual.message import Message

from tui.widgets.dataset_marking import MarkActions


class ReplaceWanted(Message):
    """The form that changes many captions is wanted."""


class WordsWanted(Message):
    """The list of words and tags is wanted."""


class UndoWanted(Message):
    """The last change of many captions is to be taken back, or done again where not ``back``."""

    def __init__(self, back: bool) -> None:
        super().__init__()
        self.back = back


class BatchActions(MarkActions):
    """Base of the pane's actions, over marks."""

    def action_replace(self) -> None:
        """Change many captions."""
        self.post_message(ReplaceWanted())

    def action_words(self) -> None:
        """Show words and tags."""
        self.post_message(WordsWanted())

    def action_undo_batch(self, back: bool) -> None:
        """Undo or redo."""
        self.post_message(UndoWanted(back))

    def find(self, words: str) -> None:
        """Show what a filter finds, as if the user had typed it."""
        raise NotImplementedError
