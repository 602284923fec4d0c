"""The lock of a run's folder: one trainer at a time, and a passing look at it refuses nobody."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

import engine.run
from engine.errors import RunError
from engine.files import RunFolder
from engine.run import LOCK_PATIENCE_S, lock_folder


def test_a_lock_held_for_a_moment_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.run, "LOCK_PATIENCE_S", 60.0)  # a moment may be long on a loaded machine
    folder = RunFolder(tmp_path)
    folder.lock.touch()
    with open(folder.lock, "rb") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        threading.Timer(0.15, fcntl.flock, (looked_at, fcntl.LOCK_UN)).start()
        with lock_folder(folder):
            assert folder.lock.read_text().strip() == str(os.getpid())


def test_a_lock_that_stays_held_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    begin = time.monotonic()
    with lock_folder(folder), pytest.raises(RunError, match=f"process {os.getpid()}"), lock_folder(folder):
        raise AssertionError("locked twice")
    assert time.monotonic() - begin >= LOCK_PATIENCE_S
