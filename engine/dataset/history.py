"""Which caption a run used in which epoch, kept in the run's folder so that a resumed run uses the same.

Caption files may be edited at any time; what a run trains on may not depend on when it was interrupted. So the texts
are written down where they come into force: one JSON line for the texts a run began with, and one for each later
epoch, with the texts that came in then (mostly none). An epoch that has its line is decided for good: a run resumed
before it uses that line and does not look at the files again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.files import disk_error, flush
from engine.sealed import sealed, unsealed


@dataclass
class CaptionHistory:
    """The captions of a run by epoch.

    Attributes:
        path: the file; None keeps everything in memory.
        epochs: texts that came into force with an epoch, by the picture's path; epoch 1 holds the first ones.
        damaged: lines that could not be read when the file was opened; they and all after them were cut off.
        whole: bytes of the file's whole lines; what stands behind them is what a full disk left of one.
    """

    path: Path | None = None
    epochs: dict[int, dict[str, str]] = field(default_factory=dict)
    damaged: int = 0
    whole: int = field(default=0, compare=False)

    @property
    def decided(self) -> int:
        """The last epoch whose texts stand; 0 before the run has begun."""
        return max(self.epochs, default=0)

    def latest(self) -> dict[str, str]:
        """The newest text of every picture."""
        texts: dict[str, str] = {}
        for epoch in sorted(self.epochs):
            texts |= self.epochs[epoch]
        return texts

    def record(self, epoch: int, texts: Mapping[str, str]) -> None:
        """Decide an epoch: ``texts`` (by the picture's path) count from it on. Returns when they are on the disk.

        Raises:
            DiskError: they could not be written; the epoch is not decided, and may be once more.
        """
        if self.path is not None:
            line = sealed(json.dumps({"epoch": epoch, "captions": dict(texts)}, ensure_ascii=True)).encode() + b"\n"
            try:
                self._append(self.path, line)
                flush(self.path)  # an epoch without news too: where its line is missing, the file was damaged
                if not self.epochs:  # the file is new: its name must stand, too
                    flush(self.path.parent)
            except OSError as err:
                raise disk_error(err, self.path) from err
            self.whole += len(line)
        self.epochs.setdefault(epoch, {}).update(texts)

    def _append(self, path: Path, line: bytes) -> None:
        """Write a line behind the last whole one: nothing after a torn line would ever be read."""
        with open(path, "ab") as file:
            if file.tell() > self.whole:
                file.truncate(self.whole)
            file.write(line)


def load_history(path: Path) -> CaptionHistory:
    """Read a run's history; empty where there is no file. A torn end is cut off, so the run's lock must be held.

    Raises:
        DiskError: the file cannot be read or cut.
    """
    history = read_history(path)
    try:
        if path.exists() and path.stat().st_size > history.whole:
            os.truncate(path, history.whole)
    except OSError as err:
        raise disk_error(err, path) from err
    return history


def read_history(path: Path) -> CaptionHistory:
    """A run's history without changing its file.

    Raises:
        DiskError: the file cannot be read.
    """
    history = CaptionHistory(path)
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as err:
        raise disk_error(err, path) from err
    for line in data.splitlines(keepends=True):
        found = _parsed(line)
        if found is None:
            history.damaged = data.count(b"\n", history.whole)
            break
        epoch, texts = found
        history.epochs.setdefault(epoch, {}).update(texts)
        history.whole += len(line)
    return history


def _parsed(line: bytes) -> tuple[int, dict[str, str]] | None:
    """Epoch and texts of a whole line; None for anything else."""
    try:
        record = unsealed(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    epoch, texts = record.get("epoch"), record.get("captions")
    if not isinstance(epoch, int) or epoch < 1 or not isinstance(texts, dict):
        return None
    return (epoch, texts) if all(isinstance(text, str) for text in texts.values()) else None
