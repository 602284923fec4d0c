"""What a screen must find again when it comes back: where the user was, and what was not written yet.

One plain object that the host keeps while screens come and go, and writes to the work folder when it ends. All else
on the screen is made anew from the dataset and the run's events. Every field has a default, and a file that cannot
be read is no error: the user starts at the top, and the file is put aside.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from engine.dataset.regular import read_limited
from engine.errors import DatasetError, DiskError
from engine.files import atomic_write
from engine.sealed import sealed, unsealed
from engine.text import safe_text

MAX_BYTES = 4 * 2**20

NEXT_START = 10**9
"""In place of an epoch: what was changed counts from the run's next start."""


@dataclass
class Draft:
    """Text in the caption editor that is not in its file."""

    path: str = ""
    """The picture whose caption it is; empty when there is no draft."""
    text: str = ""
    base: str = ""
    """Digest of the caption file it was begun on, "" where there was none."""
    row: int = 0
    column: int = 0


@dataclass
class SessionState:
    """Everything that outlives a screen. Values are plain, so that they can be written as JSON."""

    screen: str = "workbench"
    """workbench, setup, wizard, runs or epochs."""
    pane: str = "dataset"
    zoomed: bool = False

    config: str = ""
    """The configuration file that the workbench shows."""
    run: str = ""
    """Folder of the run that the training pane shows."""
    offered: str = ""
    """Folder of the run that broke off and was offered to go on with: once is enough."""

    cursor: str = ""
    """Path of the picture that the cursor is on."""
    filter: str = ""
    sort: str = "name"
    descending: bool = False
    draft: Draft = field(default_factory=Draft)
    drafts: dict[str, Draft] = field(default_factory=dict)
    """Texts of other pictures that could not be written yet, by the picture's path."""
    edited: dict[str, int] = field(default_factory=dict)
    """Pictures edited while a run is live, by their paths: the epoch from which a caption counts, or
    :data:`NEXT_START`."""

    reminder: str = ""
    """The recipe whose words on captions are shown above the text; empty for none."""

    smoothing: int = -2
    """Index of the loss's average, -1 for none, -2 while not chosen."""
    window: int = 0
    """Halvings of the plots' range."""

    taken_to: str = ""
    """Folder that an epoch's LoRA was copied to last, as typed."""

    form: dict[str, str] = field(default_factory=dict)
    """The setup form's fields as typed; the wizard's too, as far as they are settings of the run."""
    wizard: dict[str, str] = field(default_factory=dict)
    """The wizard's page, and what was answered there that is no setting of the run."""


def load_session(path: Path) -> SessionState:
    """The state that ``path`` holds; what is missing or of another type has its default.

    A file that is no session, or too large for one, is put aside as ``.bad``: there may be texts in it.
    """
    state = SessionState()
    try:
        data = read_limited(path, MAX_BYTES)
    except DatasetError:
        return state
    try:
        table = unsealed(data) if len(data) <= MAX_BYTES else None
    except ValueError:
        table = None
    if isinstance(table, dict):
        _take(state, table)
    else:
        with contextlib.suppress(OSError):
            os.replace(path, path.with_name(path.name + ".bad"))
    return state


def save_session(state: SessionState, path: Path) -> None:
    """Write ``state`` to ``path``.

    Raises:
        DiskError: it cannot be written, or not with every draft.
    """
    write_session(packed(state), path)


def packed(state: SessionState) -> dict[str, Any]:
    """A copy of ``state`` as plain values, to be written by another thread."""
    return asdict(state)


def write_session(table: dict[str, Any], path: Path) -> None:
    """Write a packed state to ``path``; of one too large to be read again, without its longest drafts.

    Raises:
        DiskError: it cannot be written, or not with every draft.
    """
    drafts, left_out = table["drafts"], []
    while len(text := sealed(json.dumps(table, indent=1))) > MAX_BYTES and drafts:
        left_out.append(max(drafts, key=lambda name: len(drafts[name]["text"])))
        del drafts[left_out[-1]]
    if len(text) > MAX_BYTES:
        raise DiskError("The session is too large", f"{len(text)} bytes", "What was kept before is unharmed.")
    atomic_write(path, text)
    if left_out:
        detail = f"{len(left_out)} unsaved caption(s) left out, {safe_text(left_out[0], 200)} among them"
        raise DiskError("The session is too large to keep every text", detail, "Save them to their files.")


class Keeper:
    """Has the writing thread keep the session whenever the drafts in it are others."""

    def __init__(self, session: SessionState, write: Callable[[dict[str, Any]], None] | None, pool: Executor) -> None:
        self._session, self._write, self._pool = session, write, pool
        self._kept = (session.draft, session.drafts)
        self.writes: list[Future[None]] = []

    def keep(self) -> None:
        """Write if there is something new; not while the former write is still under way."""
        self.writes = [write for write in self.writes if not write.done()]
        drafts = (self._session.draft, self._session.drafts)
        if self._write is not None and not self.writes and drafts != self._kept:
            self._kept = drafts
            self.writes.append(self._pool.submit(self._write, packed(self._session)))


def _take(state: SessionState | Draft, table: Any) -> None:
    """Take every value of ``table`` that has the type of the default."""
    if not isinstance(table, dict):
        return
    for part in fields(state):
        old, new = getattr(state, part.name), table.get(part.name)
        if isinstance(old, Draft):
            _take(old, new)
        elif isinstance(state, SessionState) and part.name == "drafts" and isinstance(new, dict):
            state.drafts = {key: _draft(value) for key, value in new.items()}
        elif isinstance(state, SessionState) and part.name == "edited" and isinstance(new, dict):
            state.edited = {key: value for key, value in new.items() if type(value) is int}
        elif isinstance(state, SessionState) and part.name in ("form", "wizard") and isinstance(new, dict):
            setattr(state, part.name, {key: value for key, value in new.items() if isinstance(value, str)})
        elif not isinstance(old, dict) and type(new) is type(old):
            setattr(state, part.name, new)


def _draft(table: Any) -> Draft:
    draft = Draft()
    _take(draft, table)
    return draft
