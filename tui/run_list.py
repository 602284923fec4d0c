"""The runs in a folder, each summed up from its events: for `kiln runs`, and to find what can be resumed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.errors import RunError
from engine.files import RunFolder, is_run_of
from engine.run import last_saved_step
from engine.text import safe_text
from tui.bridge import view_of
from tui.elsewhere import holder_of
from tui.glance import glance
from tui.view import LIVE_STATES, RESUMABLE_STATES, RunView

SWEEP_NAME = "sweep.toml"
"""The manifest of a sweep, in whose folder its runs lie: they are listed like those beside it."""


@dataclass(frozen=True)
class RunSummary:
    """One run in figures; times in seconds, ``loss`` smoothed, NaN-free: None before the first step.

    ``resumes_after`` is the step from which it would be gone on with, 0 for its start; None where it cannot be.
    """

    name: str
    folder: str
    state: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float | None
    elapsed_s: float
    started_at: float
    loras: tuple[str, ...]
    resumes_after: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def list_runs(*places: Path) -> list[RunSummary]:
    """Every run in ``places``, the newest last.

    Raises:
        RunError: there is no such folder, or it cannot be read.
    """
    folders: list[Path] = []
    for place in places:
        try:
            folders += runs_in(place)
        except OSError as err:
            raise RunError(
                "No runs there", f"{safe_text(place)}: {err.strerror}", "Name the folder: kiln runs DIR."
            ) from err
    return sorted((summary(folder) for folder in folders), key=lambda run: (run.started_at, run.name))


def find_run(places: Sequence[Path], name: str) -> Path:
    """A run's folder by its name in one of ``places``, or by its path.

    Raises:
        RunError: there is none.
    """
    for folder in (*(place / name for place in places), Path(name)):
        if is_run(folder):
            return folder
    for place in filter(Path.is_dir, places):
        for folder in runs_in(place):
            if folder.name == name:
                return folder
    known = ", ".join(run.name for run in list_runs(*filter(Path.is_dir, places)))
    where = " or ".join(safe_text(place) for place in places)
    raise RunError("There is no such run", f"{safe_text(name)} in {where}", f"There are: {known}" if known else "")


def summary(folder: Path) -> RunSummary:
    """Sum up one run's folder.

    Raises:
        RunError: its events cannot be read.
    """
    return summed(folder, read_view(folder, glance))


def summed(folder: Path, view: RunView) -> RunSummary:
    """Sum up one run whose events are folded already."""
    smooth = view.courses.smoothed[0].course
    state = _state(folder, view)
    return RunSummary(
        name=folder.name,
        folder=str(folder),
        state=state,
        epoch=view.epoch,
        epochs=view.epochs,
        step=view.step,
        steps=view.steps,
        loss=smooth[-1] if smooth and smooth[-1] == smooth[-1] else None,
        elapsed_s=view.done.elapsed_s if view.done is not None else view.active_s,
        started_at=view.started_at or view.last_time,
        loras=tuple(str(path) for path, _ in lora_files(folder)),
        resumes_after=last_saved_step(RunFolder(folder)) if state in RESUMABLE_STATES else None,
    )


def lora_files(folder: Path) -> list[tuple[Path, int]]:
    """A run's LoRA files with their sizes, the newest last.

    By their time: names count epochs here and steps there.
    """
    found = []
    for path in folder.glob("*.safetensors"):
        with contextlib.suppress(OSError):  # removed since it was listed
            info = path.stat()
            found.append((info.st_mtime_ns, path, info.st_size))
    return [(path, size) for _, path, size in sorted(found)]


def read_view(folder: Path, read: Callable[[Path], RunView] = view_of) -> RunView:
    """The view that a run's events fold to; an empty one where none were written yet.

    Args:
        read: reads the event file, :func:`tui.glance.glance` where a list is all that is shown.

    Raises:
        RunError: the events cannot be read.
    """
    events = RunFolder(folder).events
    try:
        return read(events) if events.exists() else RunView()
    except OSError as err:
        raise RunError("The run's events cannot be read", f"{safe_text(events)}: {err.strerror}", "") from err


def latest_unfinished(runs_dir: Path, name: str) -> Path:
    """The newest run called ``name`` (or its numbered followers) that did not finish and is not being trained.

    Raises:
        RunError: there is none.
    """
    named = [run for run in list_runs(runs_dir) if is_run_of(name, run.name)]
    for run in reversed(named):
        if run.state in RESUMABLE_STATES:
            return Path(run.folder)
    found = ", ".join(f"{run.name} ({run.state})" for run in named) or "no run of that name"
    raise RunError(
        "Nothing to resume",
        f"{safe_text(name)} in {safe_text(runs_dir)}: {found}",
        "Leave out --resume to start anew.",
    )


def runs_in(place: Path) -> list[Path]:
    """The folders of runs in ``place``, those of sweeps there included.

    Raises:
        OSError: it cannot be read.
    """
    found = []
    for item in sorted(place.iterdir()):
        if is_run(item):
            found.append(item)
        elif not item.name.startswith(".") and (item / SWEEP_NAME).is_file():
            with contextlib.suppress(OSError):
                found += [inner for inner in sorted(item.iterdir()) if is_run(inner)]
    return found


def is_run(folder: Path) -> bool:
    """Whether a run's configuration stands in ``folder``."""
    return not folder.name.startswith(".") and folder.is_dir() and RunFolder(folder).config.is_file()


def _state(folder: Path, view: RunView) -> str:
    """The run's state; "interrupted" when it ended without saying so (a crash, a power cut)."""
    if view.state in LIVE_STATES and not holder_of(RunFolder(folder).lock):
        return "interrupted"
    return view.state
