"""Many captions written as one step: whole files each, over nobody else's changes, taken back with one undo.

Comes in: what each caption is to be. Goes out: files, the step in the journal, and by name what was left out. A step
is in the journal before its first file is written; files go to the disk in groups, whose flushes run side by side,
because one after the other 5,000 of them take minutes. Waits for the disk: not for a thread that draws.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from engine.dataset.edits import (
    CaptionChanged,
    CaptionFile,
    mode_of,
    open_caption,
    parsed,
    planned,
    raw_of,
    refuse_changed,
)
from engine.dataset.journal import Change, Journal, Step
from engine.errors import DatasetError, DiskError, EngineError
from engine.files import atomic_path, disk_error, flush
from engine.leftovers import clear_up_once, held
from engine.locks import alone_in
from engine.text import safe_text

GROUP = 256
"""Files that are written together; a folder is kept from others for so long."""

FLUSHES = 16
"""Files flushed side by side."""


@dataclass(frozen=True)
class Wanted:
    """A caption as it is read for training, before and after; ``old`` is None where there is no file."""

    path: Path
    old: str | None
    new: str


@dataclass
class Outcome:
    """What became of a step.

    Attributes:
        done: the captions that are as they were to be.
        refused: those that were left as they were, and why.
        stopped: it was stopped before all were written.
        elsewhere: nothing was tried, since none of the captions belongs to what may be changed now.
    """

    what: str = ""
    done: list[Change] = field(default_factory=list)
    refused: list[tuple[Path, EngineError]] = field(default_factory=list)
    stopped: bool = False
    elsewhere: bool = False


@dataclass(frozen=True)
class _Ready:
    """A file to write: what it is read from, and its bytes; None removes it."""

    change: Change
    base: CaptionFile
    data: bytes | None


_BREAK = re.compile("[\r\n]")

Told = Callable[[int], None]
"""Told how many files are written."""


def _nobody(count: int) -> None:
    pass


def _never() -> bool:
    return False


def apply(
    what: str, wanted: Iterable[Wanted], journal: Journal, told: Told = _nobody, stop: Callable[[], bool] = _never
) -> Outcome:
    """Write captions as one step, named ``what`` in the journal.

    Files that no longer hold what ``old`` says are left out. White space around a caption stays.

    Raises:
        DiskError: the journal cannot be written; no caption was.
    """
    outcome = Outcome(what)
    found = []
    for each in wanted:
        try:
            found.append(_planned(each))
        except EngineError as err:
            outcome.refused.append((each.path, err))
    if ready := [each for each in found if each is not None]:
        step = journal.record(Step(what, tuple(each.change for each in ready)))
        _write(ready, outcome, told, stop)
        with contextlib.suppress(DiskError):  # undoing will name them
            journal.amend(step, outcome.done)
    return outcome


def undo(
    journal: Journal, within: Container[Path] | None = None, told: Told = _nobody, stop: Callable[[], bool] = _never
) -> Outcome | None:
    """Take the newest step back; None where there is none.

    Args:
        journal: of the work folder.
        within: captions that may be changed; all where None.
        told: as above.
        stop: as above; what was not taken back then stays in the journal.

    Raises:
        DiskError: the journal cannot be read or written.
    """
    return _moved(journal.undoable(), journal.undone, within, told, stop, back=True)


def redo(
    journal: Journal, within: Container[Path] | None = None, told: Told = _nobody, stop: Callable[[], bool] = _never
) -> Outcome | None:
    """Do the step again that was taken back last; as :func:`undo`."""
    return _moved(journal.redoable(), journal.redone, within, told, stop, back=False)


def _moved(
    step: Step | None,
    settle: Callable[[Step], None],
    within: Container[Path] | None,
    told: Told,
    stop: Callable[[], bool],
    back: bool,
) -> Outcome | None:
    """Take ``step`` back, or do it again; the journal hears of it (``settle``) once nothing of it is left to do."""
    if step is None:
        return None
    outcome = _move(step, within, told, stop, back)
    if not (outcome.elsewhere or outcome.stopped):
        settle(step)
    return outcome


def _move(step: Step, within: Container[Path] | None, told: Told, stop: Callable[[], bool], back: bool) -> Outcome:
    outcome = Outcome(step.what)
    ready = []
    allowed = 0
    for change in step.changes:
        if within is not None and change.path not in within:
            outcome.refused.append((change.path, _not_here(change.path)))
            continue
        allowed += 1
        try:
            each = _taken_back(change) if back else _done_again(change)
        except EngineError as err:
            outcome.refused.append((change.path, err))
            continue
        if each is None:
            outcome.done.append(change)
        else:
            ready.append(each)
    outcome.elsewhere = not allowed
    _write(ready, outcome, told, stop)
    return outcome


def _planned(wanted: Wanted) -> _Ready | None:
    """What to write; None where nothing changes."""
    base = open_caption(wanted.path)
    if (base.text.strip() if base.digest else None) != wanted.old:
        raise CaptionChanged(base)
    core = base.text.strip()
    at = base.text.find(core)
    new = wanted.new.replace("\r\n", "\n").replace("\r", "\n").strip()
    text = base.text[:at] + new + base.text[at + len(core) :] if new else ""
    after, data = planned(base, text)
    if after is base:
        return None
    if parsed(base.path, data).text != text:
        raise DatasetError(
            "The caption cannot be written",
            f"{safe_text(base.path)} would begin with a byte-order mark that is none",
            "Remove U+FEFF from its beginning.",
        )
    return _Ready(Change(base.path, base.text if base.digest else None, text, _raw(base, text, data)), base, data)


def _raw(base: CaptionFile, text: str, data: bytes) -> str | None:
    """The text of ``base`` with its own line ends, if writing its text over ``data`` would not bring them back."""
    if not base.digest:
        return None
    if base.body and _BREAK.search(base.body) is None and _BREAK.search(text) is None and text:
        return None  # as nearly all captions are: one line, which keeps its end
    back, _ = planned(parsed(base.path, data), base.text)
    return None if back.digest == base.digest else raw_of(base)


def _taken_back(change: Change) -> _Ready | None:
    """What undoing writes; None where the caption is as it was before already."""
    base = _expected(change.path, change.after, change.before)
    if base is None:
        return None
    if change.before is None:
        return _Ready(change, base, None)
    if change.raw is not None:
        # Line ends come back only over what the step left: else others have changed them since.
        first = parsed(change.path, base.mark + change.raw.encode(base.encoding, "surrogatepass"))
        if planned(first, change.after or "")[0].digest == base.digest:
            return _Ready(change, base, planned(base, change.before, change.raw)[1])
    return _Ready(change, base, planned(base, change.before)[1])


def _done_again(change: Change) -> _Ready | None:
    base = _expected(change.path, change.before, change.after)
    if base is None:
        return None
    return _Ready(change, base, None if change.after is None else planned(base, change.after)[1])


def _expected(path: Path, now: str | None, then: str | None) -> CaptionFile | None:
    """The file, which must hold ``now``; None if it holds ``then`` already."""
    base = open_caption(path)
    text = base.text if base.digest else None
    if text == then:
        return None
    if text != now:
        raise CaptionChanged(base)
    return base


def _not_here(path: Path) -> DatasetError:
    return DatasetError(
        "The caption is not in the dataset that is open", safe_text(path), "Open its dataset to take it back."
    )


# Writing


def _write(ready: Sequence[_Ready], outcome: Outcome, told: Told, stop: Callable[[], bool]) -> None:
    by_folder = sorted(ready, key=lambda each: str(each.base.path.parent))
    with ThreadPoolExecutor(FLUSHES, thread_name_prefix="flush") as pool:
        for folder, inside in groupby(by_folder, key=lambda each: each.base.path.parent):
            for group in _groups(list(inside)):
                if stop():
                    outcome.stopped = True
                    return
                try:
                    with alone_in(folder):
                        _write_group(folder, group, outcome, pool)
                except EngineError as err:
                    seen = {change.path for change in outcome.done} | {path for path, _ in outcome.refused}
                    outcome.refused += [(each.base.path, err) for each in group if each.base.path not in seen]
                    if isinstance(err, DiskError):  # a full disk takes no more of the others either
                        outcome.stopped = True
                        return
                told(len(outcome.done))


def _groups(ready: list[_Ready]) -> Iterator[list[_Ready]]:
    for at in range(0, len(ready), GROUP):
        yield ready[at : at + GROUP]


def _write_group(folder: Path, group: list[_Ready], outcome: Outcome, pool: ThreadPoolExecutor) -> None:
    """Write files of one folder, which is held: whole ones beside them, flushed together, renamed one by one."""
    clear_up_once(folder)
    temps: list[tuple[_Ready, Path, int]] = []
    with contextlib.ExitStack() as stack:
        try:
            for each in group:
                if each.data is None or not each.base.digest:
                    _one_alone(each, outcome)
                    continue
                temp = folder / f".{secrets.token_hex(6)}.part"
                temps.append((each, temp, stack.enter_context(held(temp))))
                temp.write_bytes(each.data)
            descriptors = [descriptor for _, _, descriptor in temps]
            list(pool.map(_flush_all, [descriptors[at::FLUSHES] for at in range(FLUSHES)]))
            temps.reverse()
            while temps:
                _put_in_place(*temps[-1], outcome)
                temps.pop()
            flush(folder)
        except OSError as err:
            raise disk_error(err, folder) from err
        finally:
            for _, temp, _ in temps:
                with contextlib.suppress(OSError):
                    temp.unlink()


def _flush_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.fsync(descriptor)


def _put_in_place(each: _Ready, temp: Path, descriptor: int, outcome: Outcome) -> None:
    try:
        refuse_changed(each.base)
    except EngineError as err:
        temp.unlink()
        outcome.refused.append((each.base.path, err))
        return
    os.fchmod(descriptor, mode_of(each.base.path) or 0o600)
    os.replace(temp, each.base.path)
    outcome.done.append(each.change)


def _one_alone(each: _Ready, outcome: Outcome) -> None:
    """A caption that comes or goes as a whole file: that is rare."""
    path = each.base.path
    try:
        refuse_changed(each.base)
        if each.data is None:
            path.unlink()
        else:
            with atomic_path(path) as temp:
                temp.write_bytes(each.data)
    except EngineError as err:
        outcome.refused.append((path, err))
    else:
        outcome.done.append(each.change)
