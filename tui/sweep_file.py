"""A sweep's folder: its manifest ``sweep.toml``, the configuration of each run, the runs themselves.

Which runs there are is the manifest's to say; how far one has come is read from its own folder, which is right
whenever the process was killed. The state in the manifest is what was known last, for people.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from engine.config import Part, RunConfig
from engine.config_file import check_table, load_config, parse_toml, read_text
from engine.config_writer import table_text
from engine.errors import EngineError, RunError
from engine.files import RunFolder, atomic_write, disk_error, is_run_of, next_run_folder
from engine.locks import lock_folder
from engine.text import safe_text
from tui.run_list import SWEEP_NAME, is_run, read_view, summed
from tui.sweep import PlannedRun, words
from tui.view import LIVE_STATES

State = Literal["waiting", "running", "finished", "failed", "stopped"]

TITLE = """\
A sweep of lorakiln: the runs that were planned, and how far they were when this was written.
`kiln sweep --resume FOLDER` goes on with it."""


class SweepRun(Part):
    """One run of a sweep."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,79}$")]
    state: State = "waiting"
    own: Annotated[str, Field(max_length=500)] = ""
    """What is its own, in words for people."""


class SweepTable(Part):
    """The manifest."""

    version: Literal[1] = 1
    runs: Annotated[tuple[SweepRun, ...], Field(min_length=1, max_length=1000)]


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder and what its manifest says."""

    folder: Path
    runs: tuple[SweepRun, ...]

    def config(self, name: str) -> Path:
        """The configuration of the run of that name."""
        return self.folder / "configs" / f"{name}.toml"

    def with_state(self, name: str, state: State) -> Sweep:
        """The same with another state of one run, written where it is another."""
        runs = tuple(run.model_copy(update={"state": state}) if run.name == name else run for run in self.runs)
        if runs == self.runs:
            return self
        changed = Sweep(self.folder, runs)
        write_manifest(changed)
        return changed


def create_sweep(folder: Path, runs: Sequence[PlannedRun]) -> Sweep:
    """Make ``folder`` with everything in it, the manifest last: without one it is no sweep.

    Raises:
        DiskError: it cannot be written.
        RunError: something stands there meanwhile.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        (folder / "configs").mkdir()
    except FileExistsError as err:
        raise RunError(
            "The sweep's folder is taken", safe_text(folder), "Try again: it gets another number."
        ) from err
    except OSError as err:
        raise disk_error(err, folder) from err
    sweep = Sweep(folder, tuple(SweepRun(name=run.name, own=words(run.changes)) for run in runs))
    for run in runs:
        atomic_write(sweep.config(run.name), run.text)
    write_manifest(sweep)
    return sweep


def next_sweep_folder(config: RunConfig) -> Path:
    """The folder that a sweep begun now would get."""
    return next_run_folder(config.runs_dir, f"{config.name}-sweep").absolute()


def write_manifest(sweep: Sweep) -> None:
    """Write the manifest.

    Raises:
        DiskError: nothing was changed.
    """
    runs = [run.model_dump() for run in sweep.runs]
    atomic_write(sweep.folder / SWEEP_NAME, table_text({"version": 1, "runs": runs}, TITLE))


def read_sweep(folder: Path) -> Sweep:
    """The sweep in ``folder``.

    Raises:
        ConfigError: its manifest cannot be used.
        RunError: none stands there.
    """
    path = folder / SWEEP_NAME
    if not path.is_file():
        raise RunError("No sweep stands there", f"{safe_text(path)} is missing", "Name the sweep's folder.")
    text = read_text(path)
    table = check_table(parse_toml(text, path), text, SweepTable, path)
    names = [run.name for run in table.runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RunError("The sweep names a run twice", f"{twice[0]} in {safe_text(path)}", "Give it another name.")
    return Sweep(folder.absolute(), table.runs)


@contextlib.contextmanager
def held(sweep: Sweep) -> Iterator[None]:
    """Keep other processes from working on the sweep.

    Raises:
        RunError: one does, named.
    """
    try:
        lock = contextlib.ExitStack()
        lock.enter_context(lock_folder(RunFolder(sweep.folder)))
    except RunError as err:
        raise RunError("This sweep is being worked on", err.detail, err.hint) from err
    with lock:
        yield


@dataclass(frozen=True)
class Found:
    """How far a run of a sweep has come: its folder, None before it has one, and its state as the runs' list has it.

    Attributes:
        done: it needs nothing more: finished, or stopped by itself since its best epochs were over.
    """

    folder: Path | None = None
    state: str = "waiting"
    done: bool = False

    @property
    def live(self) -> bool:
        """Whether a process trains it."""
        return self.state in LIVE_STATES


def look_at(sweep: Sweep, name: str) -> Found:
    """How far the run of that name has come; of several of its name one that is done, else the newest."""
    newest = Found()
    try:
        inside = sorted(sweep.folder.iterdir(), key=lambda folder: (len(folder.name), folder.name))
    except OSError:
        return newest
    for folder in inside:
        if is_run_of(name, folder.name) and is_run(folder):
            newest = _found(folder)
            if newest.done:
                break
    return newest


def _found(folder: Path) -> Found:
    try:
        view = read_view(folder)
        state = summed(folder, view).state
        over = state == "stopped" and view.advised is not None and view.advised.over
        done = state == "finished" or (over and load_config(RunFolder(folder).config).stop.mode == "stop")
    except EngineError:
        return Found(folder, "unreadable")
    return Found(folder, state, done)
