"""The runs in a folder, each summed up from its events: for `kiln runs`, and to find what can be resumed."""

from __future__ import annotations

import fcntl
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.errors import RunError
from engine.files import RunFolder, slug
from engine.text import safe_text
from tui.bridge import view_of
from tui.view import LIVE_STATES, RunView


@dataclass(frozen=True)
class RunSummary:
    """One run in figures; times in seconds, ``loss`` smoothed, NaN-free: None before the first step."""

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

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def list_runs(runs_dir: Path) -> list[RunSummary]:
    """Every run below ``runs_dir``, the newest last.

    Raises:
        RunError: there is no such folder, or it cannot be read.
    """
    try:
        folders = [item for item in runs_dir.iterdir() if _is_run(item)]
    except OSError as err:
        raise RunError(
            "No runs there", f"{safe_text(runs_dir)}: {err.strerror}", "Name the folder: kiln runs DIR."
        ) from err
    return sorted((summary(folder) for folder in folders), key=lambda run: (run.started_at, run.name))


def find_run(runs_dir: Path, name: str) -> Path:
    """A run's folder by its name in ``runs_dir``, or by its path.

    Raises:
        RunError: there is none.
    """
    for folder in (runs_dir / name, Path(name)):
        if _is_run(folder):
            return folder
    known = ", ".join(run.name for run in list_runs(runs_dir)) if runs_dir.is_dir() else ""
    raise RunError(
        "There is no such run", f"{safe_text(name)} in {safe_text(runs_dir)}", f"There are: {known}" if known else ""
    )


def summary(folder: Path) -> RunSummary:
    """Sum up one run's folder.

    Raises:
        RunError: its events cannot be read.
    """
    view = read_view(folder)
    smooth = view.courses.smoothed[0].course
    return RunSummary(
        name=folder.name,
        folder=str(folder),
        state=_state(folder, view),
        epoch=view.epoch,
        epochs=view.epochs,
        step=view.step,
        steps=view.steps,
        loss=smooth[-1] if smooth and smooth[-1] == smooth[-1] else None,
        elapsed_s=view.done.elapsed_s if view.done is not None else view.active_s,
        started_at=view.started_at or view.last_time,
        loras=tuple(str(path) for path in sorted(folder.glob("*.safetensors"))),
    )


def read_view(folder: Path) -> RunView:
    """The view that a run's events fold to; an empty one where none were written yet.

    Raises:
        RunError: the events cannot be read.
    """
    events = RunFolder(folder).events
    try:
        return view_of(events) if events.exists() else RunView()
    except OSError as err:
        raise RunError("The run's events cannot be read", f"{safe_text(events)}: {err.strerror}", "") from err


def latest_unfinished(runs_dir: Path, name: str) -> Path:
    """The newest run called ``name`` (or its numbered followers) that did not finish and is not being trained.

    Raises:
        RunError: there is none.
    """
    pattern = re.compile(re.escape(slug(name)) + r"(-\d+)?")
    named = [run for run in list_runs(runs_dir) if pattern.fullmatch(run.name)]
    for run in reversed(named):
        if run.state in ("stopped", "failed", "interrupted"):
            return Path(run.folder)
    found = ", ".join(f"{run.name} ({run.state})" for run in named) or "no run of that name"
    raise RunError(
        "Nothing to resume",
        f"{safe_text(name)} in {safe_text(runs_dir)}: {found}",
        "Leave out --resume to start anew.",
    )


def _is_run(folder: Path) -> bool:
    return not folder.name.startswith(".") and folder.is_dir() and RunFolder(folder).config.is_file()


def _state(folder: Path, view: RunView) -> str:
    """The run's state; "interrupted" when it ended without saying so (a crash, a power cut)."""
    if view.state in LIVE_STATES and not _is_held(RunFolder(folder).lock):
        return "interrupted"
    return view.state


def _is_held(lock: Path) -> bool:
    """Whether a process holds the run's lock."""
    try:
        with open(lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
