"""What a view forgets again: steps that are done once more, files that are gone."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from engine.events import CheckpointRemoved, CheckpointSaved, StepBroken
from tui.units import size
from tui.view_samples import forget_others

if TYPE_CHECKING:
    from tui.view import RunView


def go_back(view: RunView, after: int) -> None:
    """Forget what came after a step: it is done again."""
    view.courses.cut_after(after)
    view.epoch_marks = [mark for mark in view.epoch_marks if mark.step <= after]
    view.checkpoints = [saved for saved in view.checkpoints if saved.step <= after]
    view.samples = [sample for sample in view.samples if sample.step <= after]
    forget_others(view)
    view.pictures.go_back(after)
    view.measured = [one for one in view.measured if one.step <= after]
    if view.advised is not None and view.advised.step > after:
        view.advised = None
    view.skipped = [step for step in view.skipped if step <= after]
    if view.last_step is not None and view.last_step.step > after:
        view.last_step = None
        ended = view.epoch_marks[-1] if view.epoch_marks else None
        view.epoch = ended.epoch + (ended.step < after) if ended is not None else min(after, 1)


def fold_broken(view: RunView, event: StepBroken) -> None:
    """Take up what became of a step that was not finite."""
    if event.action == "skipped":
        view.step, view.epoch, view.skipped = event.step, event.epoch, [*view.skipped, event.step]
    elif event.action in ("restored", "stopped"):
        view.step = event.back_to
        go_back(view, event.back_to)


def fold_file(view: RunView, event: CheckpointSaved | CheckpointRemoved) -> str:
    """Take up a LoRA file that stands or is gone; what to say of it."""
    name = PurePath(event.path).name
    if isinstance(event, CheckpointSaved):
        view.checkpoints.append(event)
        return f"saved {name} ({size(event.size_bytes)})"
    view.checkpoints = [saved for saved in view.checkpoints if PurePath(saved.path).name != name]
    return f"removed {name}"
