"""Every moment at which a program changes something on the disk, as a place where a test can act.

Inside ``with Seams(roots, hook):`` each write (in pieces of 8 kB), flush, rename, removal and new folder below
``roots`` is counted and told to ``hook(number, what, path)`` before it happens. A hook kills the process, raises an
error of the operating system, or just counts. What libraries write without Python's help (safetensors' ``save_file``)
is seen where it is flushed and renamed.
"""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

PIECE = 8192
"""Bytes written between two moments."""

Hook = Callable[[int, str, str], None]


class Seams:
    """Tells ``hook`` of every change below ``roots``; one at a time in a process."""

    def __init__(self, roots: Sequence[Path], hook: Hook) -> None:
        self.count = 0
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
        if path.startswith(self._roots) or path + os.sep in self._roots:
            self.count += 1
            self._hook(self.count, what, path)

    def _put(self, place: Any, name: str, value: Any) -> None:
        self._before.append((place, name, getattr(place, name)))
        setattr(place, name, value)

    def _of_path(self, what: str, act: Any) -> Any:
        def with_moment(path: Any, *rest: Any, **options: Any) -> Any:
            folder = options.get("dir_fd")
            name = os.fsdecode(path)
            self.moment(what, os.path.abspath(name) if folder is None else os.path.join(_path_of(folder), name))
            return act(path, *rest, **options)

        return with_moment

    def _of_descriptor(self, what: str, act: Any) -> Any:
        def with_moment(file: Any, *rest: Any) -> Any:
            self.moment(what, _path_of(file if isinstance(file, int) else file.fileno()))
            return act(file, *rest)

        return with_moment

    def _opener(self, opened: Any) -> Any:
        def open_with_moments(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
            plain = isinstance(file, int) or not set(mode) & set("wax+") or options.get("opener")
            path = "" if plain else os.path.abspath(os.fsdecode(file))
            if not path.startswith(self._roots):
                return opened(file, mode, buffering, *rest, **options)
            self.moment("open", path)
            raw = _Pieces(file, mode.replace("b", "").replace("t", ""))
            raw.tell_write = lambda: self.moment("write", path)
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

    def write(self, data: Any) -> int:
        self.tell_write()
        return super().write(memoryview(data).cast("B")[:PIECE])


def _path_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")
