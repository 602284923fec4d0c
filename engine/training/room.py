"""Room on the disk for what a run writes: how many more saves fit, a reserve for the last one, what could go.

Looked at before a run trains and before each save, so that a disk that fills up is told of while there is time. The
reserve is a file that takes the room of one save and holds nothing: given up when the disk is full, it lets the last
state and the error be written. Nothing is ever removed that the user did not mark.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import DiskError, DiskFull
from engine.events import CheckpointRemoved, DiskTight, EventLog, Log
from engine.files import RunFolder, disk_error, free_bytes, is_held
from engine.hardware.disks import network_type
from engine.text import safe_text
from engine.training.generations import discard, generations, sweep

SLACK = 2**20
"""Bytes that a save may take beyond its files: folders, events, the file system's own."""

FEW_SAVES = 3
"""So many saves and fewer are told of."""

SWEEPS, SWEEP_S = 3, 0.05
"""How often an ended run tries to remove what must not stay, and seconds in between."""

STATES_KEPT = 2
"""Of each run so many states are never offered for removal: the newest, and one for when that is damaged."""

MOST_OFFERED, OFFERED_CHARS = 60, 32_000
"""What one event names at most: readers look for the last line of a file in its last 64 kB."""

RESERVE_PART = 4
"""The reserve is at most this part of what is free."""


@dataclass(frozen=True)
class SaveSize:
    """Bytes that a save takes: of its training state, and of its LoRA files in all layouts."""

    state: int
    lora: int

    @property
    def whole(self) -> int:
        """Bytes that must be free for one save."""
        return self.state + self.lora + SLACK

    def fit(self, free: int, states_to_come: int, loras_to_come: int | None = None) -> int:
        """Saves that fit into ``free`` bytes, at most one more than few.

        Args:
            states_to_come: so many states stand beside the present ones before the oldest goes for each new one.
            loras_to_come: the same of LoRA files; None where all of them stay.
        """
        saves = 0
        while saves <= FEW_SAVES and free >= self.whole:
            free -= self.lora if loras_to_come is None or saves < loras_to_come else 0
            free -= self.state if saves < states_to_come else 0
            saves += 1
        return saves


class Room:
    """The disk under one run's folder, in its main process.

    Attributes:
        size: what a save takes; measured once one stands.
        spent: the reserve was given up and is not there again yet.
        loras_to_come: see :meth:`SaveSize.fit`.
    """

    def __init__(self, folder: RunFolder, events: EventLog, keep_states: int) -> None:
        self.folder = folder
        self.events = events
        self.keep_states = keep_states
        self.size = SaveSize(0, 0)
        self.spent = False
        self.loras_to_come: Callable[[], int | None] = lambda: None
        # Named like what writes leave when they are killed, so it is cleared up like that.
        self._reserve = folder.root / ".reserve.part"
        self._told = FEW_SAVES + 1

    def begin(self, size: SaveSize) -> None:
        """Before a run trains: refuse a disk without room for one save, and take the reserve.

        Raises:
            DiskError: there is no room for one save.
        """
        self.size = size
        self.check()
        if kind := network_type(self.folder.root):
            text = (
                f"The run's folder is on a network disk ({kind}): locks and renames may not hold there. Let only one "
            )
            self.events.append(Log("warning", safe_text(f"{text}machine use it, or keep runs on a local disk.")))
        try:
            self._take_reserve()
        except OSError as err:
            text = f"No room is kept in reserve for the last save: {disk_error(err, self._reserve).detail}"
            self.events.append(Log("warning", safe_text(text)))

    def check(self) -> None:
        """Before a save: tell when few more fit.

        Raises:
            DiskFull: not even this one fits; nothing was written.
            DiskError: the run's folder is gone.
        """
        self.require_folder()
        saves, free = self._saves()
        if saves != self._told:
            self._tell(saves, free)
        if saves == 0:
            raise DiskFull(
                "The disk is full",
                f"a save takes {in_mb(self.size.whole)}, {in_mb(free)} are free at {safe_text(self.folder.root)}",
                f"Free {in_mb(self.size.whole - free)} or more; what stands there is unharmed.",
            )

    def require_folder(self) -> None:
        """See that the run's folder is still there: writing would make a new one, without the run's configuration.

        Raises:
            DiskError: it was moved or removed, or its disk is not mounted any more.
        """
        if not self.folder.config.exists():
            raise DiskError(
                "The run's folder is gone",
                f"{safe_text(self.folder.root)} was moved or removed, or its disk is not mounted any more",
                "Put it back where it was: the run goes on there.",
            )

    def offer(self) -> None:
        """Tell what could be removed, however many saves fit by the figures: a quota is in none of them."""
        saves, free = self._saves()
        self._tell(min(saves, FEW_SAVES), free)

    def _tell(self, saves: int, free: int) -> None:
        self._told = saves
        offered = removable(self.folder) if saves <= FEW_SAVES else []
        paths, sizes = tuple(str(path) for path, _ in offered), tuple(size for _, size in offered)
        self.events.append(DiskTight(saves, free / 2**30, self.size.whole / 2**30, paths, sizes))

    def give_up(self) -> bool:
        """Remove the reserve; False where there is none or the disk refuses even that."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        self.spent = True
        return True

    def refill(self) -> None:
        """Take the reserve again.

        Raises:
            DiskFull: there is no room for it and one more save.
        """
        self.check()
        try:
            self._take_reserve()
        except OSError as err:
            raise disk_error(err, self._reserve) from err
        self.spent = False

    def remove(self, marked: Iterable[str]) -> None:
        """Remove what the user marked, as far as it may still be removed; tells what was."""
        wanted, done, freed = set(marked), 0, 0
        for path, size in removable(self.folder):
            if str(path) not in wanted:
                continue
            try:
                if path.is_dir():
                    discard(path)
                else:
                    path.unlink()
            except OSError as err:
                text = f"{safe_text(path)} could not be removed: {safe_text(err.strerror)}"
                self.events.append(Log("warning", text))
                continue
            done, freed = done + 1, freed + size
            if path.parent == self.folder.root:
                self.events.append(CheckpointRemoved(str(path), _step_in(self.folder, path), 0))
        left = len(wanted) - done
        spared = f"; {left} are needed now, or gone" if left else ""
        self.events.append(Log("info", f"{done} files and folders were removed, {in_mb(freed)}{spared}"))
        self.offer()

    def close(self) -> None:
        """Remove the reserve, and what writes left that could not even be cleared up: an ended run leaves none.

        A disk that refuses is asked again; what it then keeps, which may be as large as a save, is told by name.
        """
        for _ in range(SWEEPS):
            try:
                return sweep_folder(self.folder)
            except OSError as err:
                refused = disk_error(err, self.folder.root)
            time.sleep(SWEEP_S)
        text = f"Temporary files could not be removed: {refused.detail}. Remove .*.part files there by hand."
        self.events.append(Log("warning", safe_text(text)))
        return None

    def _saves(self) -> tuple[int, int]:
        """Saves that fit beside the reserve, and bytes free; as many as there is need for where nobody can tell."""
        free = free_bytes(self.folder.root)
        if free < 0:
            return FEW_SAVES + 1, free
        to_come = max(0, self.keep_states - len(generations(self.folder.states)))
        return self.size.fit(free, to_come, self.loras_to_come()), free

    def _take_reserve(self) -> None:
        """Make the reserve, of real blocks; leaves none behind where there is no room.

        Raises:
            OSError: there is none, or the disk refuses it.
        """
        nbytes = min(self.size.whole, max(0, free_bytes(self.folder.root)) // RESERVE_PART)
        try:
            with open(self._reserve, "wb") as file:
                if nbytes and hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, nbytes)
                else:
                    for _ in range(nbytes // 2**20):
                        file.write(bytes(2**20))
        except OSError:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                self._reserve.unlink()
            raise


def sweep_folder(folder: RunFolder) -> None:
    """Remove what kills and refused writes left half-done, the reserve among it; only for the holder of the lock.

    Raises:
        OSError: the disk refuses.
    """
    sweep(folder.states)
    for place in (folder.root, folder.samples, folder.records):
        for left in place.glob(".*.part"):
            left.unlink(missing_ok=True)
            if left.exists():  # the disk said that there is no such file
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(left))


def removable(folder: RunFolder) -> list[tuple[Path, int]]:
    """What this run and those beside it could do without, the oldest first, with sizes in bytes.

    States older than the newest two, and LoRA files saved in between that are not a run's newest. Runs that a process
    trains are left alone, but for this one; links are never followed.
    """
    found: list[tuple[float, Path, int]] = []
    for place in _runs(folder):
        for path in (*generations(place.states)[STATES_KEPT:], *_step_loras(place)):
            try:
                if not path.is_symlink():
                    found.append((path.stat().st_mtime, path, tree_bytes(path)))
            except OSError:
                continue  # removed since it was listed
    offered: list[tuple[Path, int]] = []
    room = OFFERED_CHARS
    for _, path, size in sorted(found)[:MOST_OFFERED]:
        room -= 6 * len(str(path))
        if room < 0:
            break
        offered.append((path, size))
    return offered


def _runs(folder: RunFolder) -> Iterator[RunFolder]:
    """This run and the others of its folder that nobody trains."""
    try:
        roots = sorted(folder.root.parent.iterdir())
    except OSError:
        roots = [folder.root]
    for root in roots:
        place = RunFolder(root)
        if root.is_symlink() or not place.config.is_file():
            continue
        if root == folder.root or not is_held(place.lock):
            yield place


def _step_loras(place: RunFolder) -> list[Path]:
    """LoRA files named by a step, but for those of the newest one."""
    found = [(step, path) for path in place.root.glob("*") if (step := _step_in(place, path))]
    newest = max((step for step, _ in found), default=0)
    return [path for step, path in found if step != newest]


def _step_in(place: RunFolder, path: Path) -> int:
    """The step that a LoRA file is named by; 0 where its name holds none."""
    match = re.fullmatch(re.escape(place.name) + r"-s(\d+)(\.[a-z]+)?\.safetensors", path.name)
    return int(match[1]) if match else 0


def tree_bytes(path: Path) -> int:
    """Bytes of a file, or of all files of a folder.

    Raises:
        OSError: it is gone, or cannot be read.
    """
    if not path.is_dir():
        return path.stat().st_size
    return sum(item.stat().st_size for item in path.iterdir())


def in_mb(nbytes: int) -> str:
    """Bytes in words: "38 MB", "1.2 GB"."""
    return f"{nbytes / 2**30:.1f} GB" if nbytes >= 2**30 else f"{max(1, round(nbytes / 2**20))} MB"
