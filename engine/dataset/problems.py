"""What a look at a dataset can find wrong, as plain values."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engine.errors import DatasetError
from engine.text import safe_text

Severity = Literal["error", "warning", "note"]
Fix = Literal["", "encoding", "convert", "rename", "exclude", "crop"]
"""What could be done about a problem at once, see :mod:`engine.dataset.mend`; empty for nothing."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong: where (already safe to show), a code for programs, and words for people.

    An error keeps a picture out of training; a warning does not; a note is good to know. ``file`` is the path itself,
    where ``path`` is what is shown of it.
    """

    path: str
    code: str
    severity: Severity
    message: str
    hint: str
    fix: Fix = ""
    file: Path | None = field(default=None, compare=False, repr=False)

    def plain(self) -> dict[str, str]:
        """Its values for JSON."""
        return {
            "path": self.path, "code": self.code, "severity": self.severity, "message": self.message,
            "hint": self.hint, "fix": self.fix,
        }  # fmt: skip


def problem(path: str | Path, code: str, severity: Severity, message: str, hint: str = "", fix: Fix = "") -> Problem:
    """A problem at ``path``; all text is made safe to show."""
    return Problem(safe_text(path), code, severity, safe_text(message), hint, fix, Path(path))


def from_error(path: str | Path, code: str, error: DatasetError, fix: Fix = "") -> Problem:
    """A refusal as a problem of severity error; the path, which a problem has already, is taken out of its text."""
    detail = error.detail
    for shown in {safe_text(path), safe_text(os.path.abspath(path))}:
        detail = detail.removeprefix(f"{shown}: ")
        if detail.startswith(f"{shown} "):
            detail = "it" + detail[len(shown) :]
    return problem(path, code, "error", f"{error.title}: {detail}", error.hint, fix)
