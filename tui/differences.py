"""What changed since a run was left, in words: the same list for `kiln resume` and for the dialog of the screens.

Takes what :func:`engine.run.outlook` found. Nothing here reads the disk or draws.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config import RunConfig
from engine.errors import RunError
from engine.events import Changed
from engine.text import safe_text
from tui.view import RunView

if TYPE_CHECKING:
    from engine.run import Outlook

HEADINGS = {
    "refused": "It cannot go on with this",
    "course": "This changes what it learns",
    "later": "This counts from a later epoch",
    "rounding": "This may change the last digits",
    "length": "This changes only how long it trains",
    "speed": "This changes only speed and memory",
    "saved": "This changes only what is saved and shown, and where",
}
"""What a difference means, by :attr:`engine.events.Changed.meaning`."""


def outlook_lines(ahead: Outlook) -> list[str]:
    """Everything there is to know before going on; no line where nothing changed and nothing is damaged."""
    lines = [f"Damaged training state passed over: {line}" for line in ahead.damaged]
    if ahead.damaged:
        lines.append(f"It goes on from step {ahead.step}, the newest state that is whole.")
    lines += change_lines(ahead.changes)
    if not ahead.told_whole:
        lines.append(
            "The state was saved by an earlier version: whether pictures and settings changed shows once it goes on."
        )
    return lines


def change_lines(changes: Iterable[Changed]) -> list[str]:
    """The differences under a heading for what they mean; ``changes`` stand in that order."""
    lines: list[str] = []
    order = list(HEADINGS)
    ranked = sorted(changes, key=lambda change: order.index(change.meaning))
    for meaning, alike in groupby(ranked, key=lambda change: change.meaning):
        lines.append(f"{HEADINGS[meaning]}:")
        lines += [f"  {safe_text(change)}" for change in alike]
    return lines


def changes_course(ahead: Outlook) -> bool:
    """Whether going on would make another LoRA than the run set out to: to be asked first."""
    return any(change.meaning == "course" for change in ahead.changes)


def refused(ahead: Outlook) -> bool:
    """Whether the run cannot go on at all."""
    return any(change.meaning == "refused" for change in ahead.changes)


def must_be_unfinished(view: RunView, config: RunConfig, folder: Path) -> None:
    """Refuse to go on with a run that has made its last step, unless it is to be longer now.

    Raises:
        RunError: it is finished.
    """
    training = config.training
    longer = training.epochs > view.epochs or training.steps > view.steps
    if view.state == "finished" and not longer:
        raise RunError(
            "The run is finished",
            f"{safe_text(folder)} made all its {view.steps} steps",
            f"For more of them raise training.epochs or training.steps in {safe_text(folder / 'config.toml')}, "
            "then resume it; its LoRA files are in its folder.",
        )
