"""What a run tells of its disk, in words. Nothing here looks at a disk."""

from __future__ import annotations

import math
from pathlib import PurePath

from engine.events import DiskTight
from tui.units import size

FEW_SAVES = 3
"""Room on the disk for so many saves and fewer is worth a warning."""

NAMED = 4
"""So many files are named in a line."""


def disk_words(event: DiskTight) -> str:
    """How many saves the disk has room for, and what could be removed from it, by name."""
    room = f"{_gib(event.free_gb)} are free, a save takes {_gib(event.save_gb)}"
    if event.saves > FEW_SAVES:
        return f"the disk has room again: {room}"
    fits = {0: "no more save", 1: "1 more save"}.get(event.saves, f"{event.saves} more saves")
    words = f"the disk has room for {fits}: {room}"
    if not event.removable:
        return words
    shown = ", ".join(map(file_words, event.removable[:NAMED]))
    more = f" and {len(event.removable) - NAMED} more" if len(event.removable) > NAMED else ""
    return f"{words}; older files that could go ({size(sum(event.sizes))}): {shown}{more}"


def _gib(value: float) -> str:
    """A size told in GiB; a damaged file of events may hold any number."""
    return size(int(value * 2**30)) if math.isfinite(value) else "unknown"


def file_words(path: str) -> str:
    """A file or state of a run by the run's name and its own: ``cat/cat-s000100.safetensors``."""
    parts = [part for part in PurePath(path).parts if part != "state"]
    return "/".join(parts[-2:])
