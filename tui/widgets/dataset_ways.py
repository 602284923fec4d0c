"""The ways that lead from the dataset pane to screens about the whole dataset: keys become messages."""

from __future__ import annotations

from textual.message import Message

from tui.widgets.dataset_training import TrainingActions


class FindingsWanted(Message):
    """What is wrong with the dataset is to be shown."""


class BalanceWanted(Message):
    """How often an epoch shows each folder is to be shown."""


class DatasetWays(TrainingActions):
    """Base of the pane's actions: one method a way."""

    def action_findings(self) -> None:
        """Show what is wrong with the dataset."""
        self.post_message(FindingsWanted())

    def action_balance(self) -> None:
        """Show how often an epoch shows each folder."""
        self.post_message(BalanceWanted())
