"""Every moment at which a program changes something on the disk, as a place where a test can act.

Inside ``with Seams(roots, hook):`` each write (in pieces of 8 kB), flush, rename, removal and new folder below
``roots`` is counted and told to ``hook(number, what, path)`` before it happens. A hook kills the process, raises an
error of the operating system, or just counts. What libraries write without Python's help (safetensors' ``save_file``)
is seen where it is flushed and renamed.

With ``record`` each change is also told after it happened, with its data: what a model of a power loss replays.
"""

from __future__ import annotations

import builtins
import io
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

PIECE = 8192
"""Bytes written between two moments."""

Hook = Callable[[int, str, str], None]

Change = tuple[str, str, Any]
"""What, on which path, and with what: a new name, a size, (offset, bytes) of a write, whether an open begins anew."""


class Seams:
    """Tells ``hook`` of every change below ``roots``; one at a time in a process."""

    def __init__(self, roots: Sequence[Path], hook: Hook, record: Callable[[Change], None] | None = None) -> None:
        self.count = 0
        self._record = record
        # Threads that change something at the same time are recorded in the order in which they did.
        self._turn: AbstractContextManager[Any] = nullcontext() if record is None else threading.RLock()
        self._roots = tuple(os.path.realpath(root) + os.sep for root in roots)
        self._hook = hook
        self._before: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> Seams:
        opened = io.open
        self._put(builtins, "open", self._opener(opened))
        self._put(io, "open", builtins.open)
        for name in ("rename", "replace", "unlink", "remove", "mkdir", "rmdir", "link", "symlink", "truncate"):
            self._put(os, name, self._of_path(name, getattr(os, name)))
        self._put(os, "fsync", self._of_descriptor("fsync", os.fsync))
        self._put(os, "fdatasync", self._of_descriptor("fsync", os.fdatasync))
        self._put(os, "write", self._of_descriptor("write", os.write))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        for place, name, value in reversed(self._before):
            setattr(place, name, value)
        self._before = []

    def moment(self, what: str, path: str) -> None:
        """Count ``what`` on ``path`` if it lies below the roots, and let the hook act."""
        if self._covers(path):
            self.count += 1
            self._hook(self.count, what, path)

    def _covers(self, path: str) -> bool:
        return path.startswith(self._roots) or path + os.sep in self._roots

    def _note(self, what: str, path: str, data: Any = None) -> None:
        if self._record is not None and self._covers(path):
            self._record((what, path, data))

    def _put(self, place: Any, name: str, value: Any) -> None:
        self._before.append((place, name, getattr(place, name)))
        setattr(place, name, value)

    def _of_path(self, what: str, act: Any) -> Any:
        def with_moment(path: Any, *rest: Any, **options: Any) -> Any:
            folder = options.get("dir_fd")
            name = os.fsdecode(path)
            full = os.path.abspath(name) if folder is None else os.path.join(_path_of(folder), name)
            self.moment(what, full)
            with self._turn:
                done = act(path, *rest, **options)
                names = what in ("rename", "replace")
                self._note(what, full, os.path.abspath(rest[0]) if names else (*rest, None)[0])
            return done

        return with_moment

    def _of_descriptor(self, what: str, act: Any) -> Any:
        def with_moment(file: Any, *rest: Any) -> Any:
            path = _path_of(file if isinstance(file, int) else file.fileno())
            self.moment(what, path)
            with self._turn:
                done = act(file, *rest)
                self._note(what, path)
            return done

        return with_moment

    def _opener(self, opened: Any) -> Any:
        def open_with_moments(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
            plain = isinstance(file, int) or not set(mode) & set("wax+")
            path = "" if plain else os.path.abspath(os.fsdecode(file))
            if not path.startswith(self._roots):
                return opened(file, mode, buffering, *rest, **options)
            self.moment("open", path)
            with self._turn:
                raw = _Pieces(file, mode.replace("b", "").replace("t", ""), opener=options.get("opener"))
                self._note("open", path, "w" in mode)
            raw.tell_write, raw.note_write, raw.turn = (
                lambda: self.moment("write", path),
                lambda offset, data: self._note("write", path, (offset, data)),
                self._turn,
            )
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            if "b" in mode:
                return buffered
            names = ("encoding", "errors", "newline")
            return io.TextIOWrapper(
                buffered, **(dict(zip(names, rest, strict=False)) | {k: v for k, v in options.items() if k in names}),
                line_buffering=buffering == 1,
            )  # fmt: skip

        return open_with_moments


class _Pieces(io.FileIO):
    """A file written in small pieces, each of which is told before."""

    tell_write: Callable[[], None] = staticmethod(lambda: None)
    note_write: Callable[[int, bytes], None] = staticmethod(lambda offset, data: None)
    turn: AbstractContextManager[Any] = nullcontext()

    def write(self, data: Any) -> int:
        self.tell_write()
        piece = memoryview(data).cast("B")[:PIECE]
        with self.turn:
            written = super().write(piece)
            self.note_write(self.tell() - written, bytes(piece[:written]))
        return written


def _path_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")
