"""Where files are: a run's in its own folder, by their names; the program's own where it is installed; journals.

Event files name full paths. A run's folder may have been moved since, or come from someone else, so of a path only
the last part is believed, and only as a name in the folder that the user named.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from engine.errors import DiskError
from engine.files import RunFolder

if TYPE_CHECKING:
    from tui.workplace import Workplace

SHIPPED = Path(__file__).resolve().parents[1] / "engine"
"""The demonstration's pictures are in there: a part of the program, and the same for everybody."""


def is_shipped(path: Path) -> bool:
    """Whether a file is a part of the program, so that nothing may be written to it or beside it."""
    return path.resolve().is_relative_to(SHIPPED)


def lora_in(folder: Path, path: str) -> Path:
    """The LoRA file that an event of the run in ``folder`` names ``path``."""
    return folder / _name(path)


def sample_in(folder: Path, path: str) -> Path:
    """The sample picture that an event of the run in ``folder`` names ``path``."""
    return RunFolder(folder).samples / _name(path)


def journal_in(workplace: Workplace, place: Callable[[Path], Path]) -> Path | None:
    """Where ``place`` puts a journal in the workstation's own folder; None where nothing can be written, or another
    process keeps the folder's state: then it lives as long as this one."""
    try:
        return None if workplace.shared else place(workplace.home)
    except DiskError:
        return None


def _name(path: str) -> str:
    name = PurePath(path).name
    return "unnamed" if name in ("", "..") or "\0" in name else name
