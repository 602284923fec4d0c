"""What a view keeps of sample pictures, and of what was found in them."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from engine.events import NearCopy, SampleSaved, Scored

if TYPE_CHECKING:
    from tui.view import RunView


def fold_sample(view: RunView, event: SampleSaved | Scored | NearCopy) -> tuple[str, str] | None:
    """Take up a picture or what was found in it; level and text of a log line, if it is worth one."""
    if isinstance(event, Scored):
        view.scores = view.scores | {event.path: view.scores.get(event.path, {}) | {event.name: event.value}}
        return None
    if isinstance(event, NearCopy):
        view.near_copies = view.near_copies | {event.sample: event}
        return "warning", copy_words(event)
    # A step that is done again draws its pictures again, into the same files; the folder may have moved.
    place = event.step, event.index, event.strength
    view.samples = [one for one in view.samples if (one.step, one.index, one.strength) != place]
    forget_others(view)
    view.samples.append(event)
    at = "" if event.strength == 1.0 else f" with strength {event.strength:g}"
    return "info", f"sample {event.index + 1} at step {event.step}{at}"


def forget_others(view: RunView) -> None:
    """Forget what was found in pictures that the view knows no more."""
    paths = {one.path for one in view.samples}
    view.scores = {path: scores for path, scores in view.scores.items() if path in paths}
    view.near_copies = {path: near for path, near in view.near_copies.items() if path in paths}


def copy_words(event: NearCopy) -> str:
    """A copy in words, for the log."""
    sample, picture = (PurePath(path).name for path in (event.sample, event.picture))
    return f"{sample} is nearly a copy of the training picture {picture} (distance {event.distance:.3f})"
