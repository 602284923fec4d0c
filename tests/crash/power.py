"""A disk that loses power: the recorded changes of a process, replayed up to a moment, less what was never flushed.

What a program has written is in the system's memory until it flushes. The model keeps both: what is there, and what
is on the disk. It is stricter than most file systems: flushing a file does not make its name stand, only flushing its
folder does; changes of one folder may reach the disk in another order, as may pieces of one file.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seams import Change

MODES = ("dropped", "zeroed", "torn", "reordered", "kept")
"""How a crash treats what was not flushed: gone; of the right size but zero; kept up to somewhere; kept here and
there; all there."""


@dataclass
class File:
    """A file's bytes, those on the disk, and the changes in between: (offset, bytes), or (size, None) for a cut."""

    data: bytearray = field(default_factory=bytearray)
    flushed: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def change(self, offset: int, data: bytes | None) -> None:
        """Write or cut."""
        _apply(self.data, offset, data)
        self.pending.append((offset, data))

    def flush(self) -> None:
        """Everything written so far is on the disk."""
        self.flushed, self.pending = bytes(self.data), []

    def crashed(self, mode: str, draw: random.Random) -> bytes:
        """The bytes that the next start finds."""
        found = bytearray(self.flushed)
        for offset, data in _kept(self.pending, mode, draw):
            _apply(found, offset, bytes(len(data)) if mode == "zeroed" and data else data)
        return bytes(found)


@dataclass
class Folder:
    """A folder's entries, those on the disk, and the changes in between: (old name or "", new name or "", node)."""

    entries: dict[str, Any] = field(default_factory=dict)
    flushed: dict[str, Any] = field(default_factory=dict)
    pending: list[tuple[str, str, Any]] = field(default_factory=list)

    def change(self, old: str, new: str, node: Any) -> None:
        """Add, remove or rename."""
        _move(self.entries, old, new, node)
        self.pending.append((old, new, node))

    def flush(self) -> None:
        """Every name is on the disk as it is now."""
        self.flushed, self.pending = dict(self.entries), []

    def crashed(self, mode: str, draw: random.Random) -> dict[str, Any]:
        """The entries that the next start finds; a rename has happened or has not."""
        found = dict(self.flushed)
        for old, new, node in _kept(self.pending, mode, draw):
            _move(found, old, new, node)
        return found


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
    content.extend(bytes(max(0, offset - len(content))))
    if data is not None:
        content[offset : offset + len(data)] = data


def _move(entries: dict[str, Any], old: str, new: str, node: Any) -> None:
    if old and entries.get(old) is node:
        del entries[old]
    if new:
        entries[new] = node


def _kept(pending: list[Any], mode: str, draw: random.Random) -> Iterable[Any]:
    if mode == "dropped":
        return []
    if mode == "torn":
        return pending[: draw.randint(0, len(pending))]
    if mode == "reordered":
        return [change for change in pending if draw.random() < 0.5]
    return pending


class Disk:
    """Everything below ``root``, as a program sees it and as the disk has it; at the start both are the same."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self.top = _read(Path(self.root))

    def node(self, path: str) -> Any:
        """The file or folder at ``path``; None where nothing stands."""
        node: Any = self.top
        for name in self._names(path):
            node = node.entries.get(name) if isinstance(node, Folder) else None
        return node

    def apply(self, change: Change) -> None:
        """Let a recorded change happen."""
        what, path, data = change
        folder, name, node = self.node(os.path.dirname(path)), os.path.basename(path), self.node(path)
        if what == "open":
            if node is None:
                folder.change("", name, File())
            elif data:
                node.change(0, None)
        elif what == "write":
            node.change(*data)
        elif what == "truncate":
            node.change(data, None)
        elif what == "fsync":
            node.flush()
        elif what == "mkdir":
            folder.change("", name, Folder())
        elif what in ("unlink", "remove", "rmdir"):
            folder.change(name, "", node)
        elif what in ("rename", "replace"):
            assert os.path.dirname(data) == os.path.dirname(path), f"{path} goes to another folder"
            folder.change(name, os.path.basename(data), node)
        else:
            raise ValueError(f"the model knows no {what}")

    def crash(self, target: Path, mode: str, draw: random.Random) -> None:
        """Lay what the next start finds down in ``target``, in place of all that stands there."""
        shutil.rmtree(target, ignore_errors=True)
        _lay(self.top, target, mode, draw)

    def _names(self, path: str) -> list[str]:
        rest = os.path.relpath(path, self.root)
        return [] if rest == "." else rest.split(os.sep)


def _read(path: Path) -> Folder:
    folder = Folder()
    for entry in path.iterdir():
        node: Any = _read(entry) if entry.is_dir() else File(bytearray(entry.read_bytes()))
        node.flush()
        folder.entries[entry.name] = node
    folder.flush()
    return folder


def _lay(folder: Folder, target: Path, mode: str, draw: random.Random) -> None:
    target.mkdir(parents=True)
    for name, node in folder.crashed(mode, draw).items():
        if isinstance(node, Folder):
            _lay(node, target / name, mode, draw)
        else:
            (target / name).write_bytes(node.crashed(mode, draw))


def crashes(root: Path, trace: list[Change], target: Path, count: int, seed: int) -> Iterator[tuple[int, str, Disk]]:
    """Crash after ``count`` moments spread over the trace, each time into ``target``.

    Yields:
        How many changes had happened, how the crash treated the rest, and the disk.
    """
    draw = random.Random(seed)
    ends = sorted(draw.randint(1, len(trace)) for _ in range(count))
    disk, done = Disk(root), 0
    for number, end in enumerate(ends):
        for change in trace[done:end]:
            disk.apply(change)
        done = end
        mode = MODES[number % len(MODES)]
        disk.crash(target, mode, draw)
        yield end, mode, disk


def flushed_names(disk: Disk, path: str) -> set[str]:
    """Names in a folder that certainly outlive a crash: flushed, and those above them too."""
    node: Any = disk.top
    for name in disk._names(path):
        node = node.flushed.get(name) if isinstance(node, Folder) else None
    return set(node.flushed) if isinstance(node, Folder) else set()


def versions(root: Path, trace: list[Change]) -> dict[str, set[bytes]]:
    """Every content that a file has had whenever it was given its name; by its path below ``root``."""
    disk = Disk(root)
    found: dict[str, set[bytes]] = {}
    for change in trace:
        disk.apply(change)
        if change[0] in ("rename", "replace"):
            for path, data in _contents(disk.node(change[2]), change[2]):
                found.setdefault(os.path.relpath(path, disk.root), set()).add(data)
    return found


def _contents(node: Any, path: str) -> Iterator[tuple[str, bytes]]:
    if isinstance(node, File):
        yield path, bytes(node.data)
    elif isinstance(node, Folder):
        for name, inner in node.entries.items():
            yield from _contents(inner, os.path.join(path, name))
