"""Which of a run's LoRA files stay: the newest, what the advisor recommends, what the user starred.

Only files of the kinds "epoch", "step" and "candidate" that the run's own events name ever go, and only once a newer
one stands: a kill in between leaves one too many, which goes with the next save. A candidate is the file of an epoch
that was measured and is not saved by the cadence: it may turn out to be the best. What goes is a function of what was
saved and advised, so a run that is resumed keeps what one that never stopped keeps.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from engine.config_measuring import CANDIDATES
from engine.events import CheckpointRemoved, CheckpointSaved, EventLog, Log, RunStarted, StepBroken, replay
from engine.files import RunFolder
from engine.lora.formats import Layout
from engine.text import safe_text
from engine.training.advisor import Advice
from engine.training.export import Export

ROLLING = ("epoch", "step")
"""Kinds that ``saving.keep_loras`` limits."""

EPOCH_ENDS = ("epoch", "candidate")
"""Kinds that are the file of an epoch, and can be recommended by its number."""


@dataclass(frozen=True)
class Save:
    """The LoRA files written at one moment, one for each layout, with their sizes in bytes."""

    step: int
    epoch: int
    kind: str
    files: tuple[tuple[Path, int], ...] = ()


def superfluous(
    saves: Sequence[Save], limit: int, advice: Advice, starred: Collection[int], last: bool = False
) -> list[Save]:
    """Which of ``saves`` go, the oldest first.

    Args:
        limit: how many of the rolling kinds stay, starred ones not counted; 0 keeps all of them.
        advice: its best epoch and the saved ones before and after that stay, whatever the limit; so does its whole
            range where that leaves half of the limit to the newest.
        starred: epochs of which everything stays.
        last: no measurement comes any more, so no candidate can turn out to be the best.
    """
    ends = sorted({save.epoch for save in saves if save.kind in EPOCH_ENDS})
    saves = sorted((save for save in saves if save.epoch not in starred), key=lambda save: save.step)
    core = _with_neighbours(ends, advice.best)
    gone = []
    if limit:
        span = core | {epoch for epoch in ends if advice.first <= epoch <= advice.last}
        wanted = span if len(span) <= limit // 2 else core
        rolling = [save for save in saves if save.kind in ROLLING]
        free = [save for save in rolling if save.kind == "step" or save.epoch not in wanted]
        gone += free[: len(free) - max(1, limit - (len(rolling) - len(free)))] if len(rolling) > limit else []
    candidates = [save for save in saves if save.kind == "candidate" and save.epoch not in core]
    gone += candidates[: max(0, len(candidates) - (0 if last else CANDIDATES))]
    return sorted(gone, key=lambda save: save.step)


def _with_neighbours(epochs: Sequence[int], best: int) -> set[int]:
    """``best`` and the nearest of ``epochs`` on either side; none while there is no best."""
    if not best:
        return set()
    before, after = [epoch for epoch in epochs if epoch < best], [epoch for epoch in epochs if epoch > best]
    return {best, *before[-1:], *after[:1]}


class Shelf:
    """The LoRA files of one run, in its main process.

    Attributes:
        limit: ``saving.keep_loras``.
        advice: what the advisor says now.
        starred: the epochs that the user starred.
    """

    def __init__(self, limit: int, folder: RunFolder, events: EventLog) -> None:
        self.limit = limit
        self.folder = folder
        self.events = events
        self.advice: Callable[[], Advice] = lambda: Advice("unclear")
        self.starred: Callable[[], Collection[int]] = tuple
        self._saves: dict[tuple[int, str], Save] = {}

    @property
    def epochs(self) -> set[int]:
        """Epochs of which a file stands."""
        return {save.epoch for save in list(self._saves.values()) if save.kind in EPOCH_ENDS}

    def to_come(self) -> int | None:
        """So many saves come beside the present ones before the oldest goes for each new one; None: all stay."""
        rolling = sum(save.kind in ROLLING for save in list(self._saves.values()))
        return max(0, self.limit - rolling) if self.limit else None

    def take_up(self, step: int) -> None:
        """Know the files that the run's events name up to ``step``, from where it goes on.

        Raises:
            OSError: the events cannot be read.
        """
        self._saves = {}
        for event in told_files(self.folder.events, step) if self.folder.events.exists() else ():
            self._add(event.step, event.epoch, event.kind, {self.folder.root / _name(event): event.size_bytes})

    def add(self, export: Export) -> None:
        """A save stands."""
        self._add(export.place.step, export.place.epoch, export.kind, export.standing)

    def tidy(self, advice: Advice, last: bool = False) -> None:
        """Remove what need not stay by ``advice``, and tell it; see :func:`superfluous`."""
        for save in superfluous(list(self._saves.values()), self.limit, advice, self.starred(), last):
            if all([self._remove(save, path, size) for path, size in save.files]):
                del self._saves[save.step, save.kind]

    def _add(self, step: int, epoch: int, kind: str, files: dict[Path, int]) -> None:
        before = self._saves.get((step, kind), Save(step, epoch, kind))
        self._saves[step, kind] = Save(step, epoch, kind, tuple((dict(before.files) | files).items()))

    def _remove(self, save: Save, path: Path, size: int) -> bool:
        """Remove a file; False where the disk refuses it. What is not as the run wrote it is left alone."""
        try:
            # Gone: a kill came before it was told, or somebody else removed it.
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(path)
                if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                    return True
                path.unlink()
        except OSError as err:
            text = f"{safe_text(path)} should go (saving.keep_loras) and could not be removed: {err.strerror}"
            self.events.append(Log("warning", safe_text(text)))
            return False
        self.events.append(CheckpointRemoved(str(path), save.step, save.epoch))
        return True


def told_files(events: Path, step: int) -> Iterator[CheckpointSaved]:
    """What a run's events say it saved up to ``step`` and has not removed, each file once.

    Left out is what a run would not call so, and what was also written by a save that never goes: that of a stop has
    the same name as one by the cadence at the same step.

    Raises:
        OSError: they cannot be read.
    """
    found: dict[str, CheckpointSaved] = {}
    lasting: set[str] = set()
    for entry in replay(events, RunStarted, StepBroken, CheckpointSaved, CheckpointRemoved):
        match entry.event:
            case RunStarted(resumed_step=back) | StepBroken(action="restored" | "stopped", back_to=back):
                found = {name: event for name, event in found.items() if event.step <= back}
            case CheckpointSaved() as saved if saved.kind not in (*ROLLING, "candidate"):
                lasting.add(_name(saved))
            case CheckpointSaved() as saved if _name(saved) in _own_names(saved):
                found[_name(saved)] = saved
            case CheckpointRemoved() as removed:
                found.pop(_name(removed), None)
    yield from (event for name, event in found.items() if event.step <= step and name not in lasting)


def _name(event: CheckpointSaved | CheckpointRemoved) -> str:
    """A file's name alone: the run's folder may have been moved."""
    return Path(event.path).name


def _own_names(saved: CheckpointSaved) -> set[str]:
    """What a run calls the files of such a save; none that could not be shown, which no run is called by."""
    run = RunFolder(Path(saved.path).parent)
    names = {run.lora(saved.epoch, saved.step, saved.kind, layout).name for layout in get_args(Layout)}
    return {name for name in names if safe_text(name) == name}
