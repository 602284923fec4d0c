"""Walking a dataset's folder: which regular files lie in it, in natural order.

Never follows a link out of the folder, never visits a folder twice, goes 16 levels deep at most. What it leaves out
for a reason that the user should know becomes a problem; dotfiles, dot-folders and kept originals are left out
quietly.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from engine.dataset.problems import Problem, problem

MAX_DEPTH = 16
MAX_ENTRIES = 1_000_000

TELL_EVERY = 5_000
"""Files of one folder between two words of how many there are."""

ORIGINALS_NOTE = "lorakiln-originals.txt"
"""A folder with a file of this name holds what was replaced: it is no part of the dataset."""

_DIGITS = re.compile(r"([0-9]+)")


@dataclass
class Tree:
    """The files of one folder: per directory, naturally sorted, the names of its regular files, plainly sorted."""

    directories: dict[str, list[str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def files(self) -> int:
        """How many regular files were found."""
        return sum(map(len, self.directories.values()))


def natural_key(path: str) -> tuple[tuple[tuple[int, int, str], ...], ...]:
    """Sort key that puts ``img2`` before ``img10`` and a folder's parts one by one; total and deterministic."""
    folder, separator, name = path.rpartition(os.sep)
    return (*_folder_key(folder), _part_key(name)) if separator else (_part_key(name),)


@lru_cache(1024)  # a hundred thousand pictures lie in a few folders
def _folder_key(folder: str) -> tuple[tuple[tuple[int, int, str], ...], ...]:
    return tuple(_part_key(part) for part in folder.split(os.sep))


def _part_key(part: str) -> tuple[tuple[int, int, str], ...]:
    pieces = _DIGITS.split(part)
    return tuple(
        (0, int(piece), piece) if index % 2 else (1, 0, piece) for index, piece in enumerate(pieces) if piece
    )


def _nobody(files: int) -> None:
    pass


def walk(
    root: Path, recursive: bool = True, leave_out: Path | None = None, told: Callable[[int], None] = _nobody
) -> Tree:
    """List the regular files below ``root``, not those below ``leave_out``.

    ``told`` hears how many entries were seen while that goes on. A folder that cannot be read is a problem, not an
    exception.
    """
    tree = Tree()
    real_root = os.path.realpath(root)
    if not os.path.isdir(real_root):
        what = "is not a folder" if os.path.lexists(root) else "does not exist"
        tree.problems.append(
            problem(root, "missing-folder", "error", f"The folder {what}", "Check dataset.folders.path.")
        )
        return tree
    pending = [(str(root), 0)]
    visited: set[tuple[int, int]] = set()
    if leave_out is not None:
        _first_visit(str(leave_out), visited)
    entries = 0
    while pending:
        directory, depth = pending.pop()
        if not _first_visit(directory, visited):
            continue
        names, folders = _list(directory, real_root, tree.problems, told, entries)
        if ORIGINALS_NOTE in names and depth:
            continue
        tree.directories[directory] = sorted(names)
        entries += len(names) + len(folders)
        told(entries)
        if entries > MAX_ENTRIES:
            hint = "Is this the right folder? Split it, or name its parts."
            tree.problems.append(problem(root, "too-many-files", "error", f"More than {MAX_ENTRIES:,} entries", hint))
            break
        if folders and depth == MAX_DEPTH:
            message = f"Folders below level {MAX_DEPTH} are not looked at"
            tree.problems.append(problem(directory, "too-deep", "warning", message, "Move the pictures up."))
        elif recursive:
            pending += [(os.path.join(directory, folder), depth + 1) for folder in folders]
    tree.directories = dict(sorted(tree.directories.items(), key=lambda item: natural_key(item[0])))
    return tree


def _first_visit(directory: str, visited: set[tuple[int, int]]) -> bool:
    try:
        status = os.stat(directory)
    except OSError:
        return True  # listing it gives the error to report
    identity = (status.st_dev, status.st_ino)
    if identity in visited:
        return False
    visited.add(identity)
    return True


def _list(
    directory: str, real_root: str, problems: list[Problem], told: Callable[[int], None], before: int
) -> tuple[list[str], list[str]]:
    """Names of the regular files and of the folders in one directory; ``before`` entries were seen elsewhere."""
    files: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink() and not _stays_inside(entry.path, real_root, problems):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file():
                    files.append(entry.name)
                    if not len(files) % TELL_EVERY:
                        told(before + len(files))
                elif not entry.is_symlink():
                    message = "Not a regular file, so it is not opened"
                    problems.append(problem(entry.path, "not-regular", "warning", message, "Remove it."))
    except OSError as err:
        message = f"The folder cannot be read: {err.strerror}"
        problems.append(problem(directory, "unreadable-folder", "error", message, "Check its permissions."))
    return files, folders


def _stays_inside(path: str, real_root: str, problems: list[Problem]) -> bool:
    target = os.path.realpath(path)
    if target != real_root and not target.startswith(os.path.join(real_root, "")):
        message = f"A link out of the folder is not followed; it points to {target}"
        problems.append(problem(path, "link-outside", "warning", message, "Add the folder it points to, or copy it."))
        return False
    if not os.path.exists(target):
        problems.append(problem(path, "broken-link", "warning", "A link that leads nowhere", "Remove it."))
        return False
    return True
