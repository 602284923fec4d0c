"""Locks: one trainer a run, one lorakiln at a time in a dataset's folder, and the holder told well."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from reliability import figure

import engine.locks
from engine.dataset.edits import CaptionChanged, open_caption, write_caption
from engine.dataset.sidecar import load_sidecar
from engine.errors import DatasetError, RunError
from engine.files import RunFolder
from engine.locks import Holder, alone_in, holder_in, in_words, lock_folder, myself
from engine.sealed import sealed

ROOT = Path(__file__).resolve().parents[2]


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_lock_held_for_a_moment_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.locks, "READER_PATIENCE_S", 60.0)  # a moment may be long on a loaded machine
    folder = RunFolder(tmp_path)
    folder.lock.touch()
    with open(folder.lock, "rb") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        threading.Timer(0.6, fcntl.flock, (looked_at, fcntl.LOCK_UN)).start()
        with lock_folder(folder):
            assert holder_in(folder.lock).pid == os.getpid()


def test_a_lock_that_stays_held_is_refused_with_its_holder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with lock_folder(folder):
        with pytest.raises(RunError, match=rf"process {os.getpid()} \(`.*`, since 2"), lock_folder(folder):
            raise AssertionError("locked twice")
        assert holder_in(folder.lock) == replace(myself(), since=holder_in(folder.lock).since)
    with lock_folder(folder):
        pass


def test_a_reader_that_never_ends_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.locks, "READER_PATIENCE_S", 0.2)
    folder = RunFolder(tmp_path)
    folder.lock.touch()
    with open(folder.lock, "rb") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        with pytest.raises(RunError, match="being trained"), lock_folder(folder):
            raise AssertionError("locked beside a reader")


FORKS = """
import os, signal, sys, time
from pathlib import Path
from engine.files import RunFolder
from engine.locks import lock_folder
with lock_folder(RunFolder(Path(sys.argv[1]))):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    sys.stdin.read()
"""


def test_a_child_that_outlives_a_killed_owner_keeps_no_lock(tmp_path: Path) -> None:
    owner = python(FORKS, tmp_path)
    child = int(first_line(owner))
    try:
        owner.kill()
        owner.wait()
        os.kill(child, 0)  # it lives
        with lock_folder(RunFolder(tmp_path)):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


INHERITS = """
import fcntl, subprocess, sys
file = open(sys.argv[1], "r+")
fcntl.flock(file, fcntl.LOCK_EX)
sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
child = subprocess.Popen(sleeper, pass_fds=[file.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_who_inherited_a_lock_is_named_with_the_dead_owner(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.lock.touch()
    owner = python(INHERITS, folder.lock)
    child = int(first_line(owner))
    try:
        owner.kill()
        owner.wait()
        folder.lock.write_text(sealed(json.dumps(asdict(replace(myself(), pid=owner.pid)))))
        with pytest.raises(RunError) as refused, lock_folder(folder):
            raise AssertionError("locked beside a child")
        assert (
            refused.value.detail == f"by the process {child}, left behind by the process {owner.pid}, which is dead"
        )
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_number_of_another_life_is_known_for_one(tmp_path: Path) -> None:
    me = myself()
    assert me.lives() and replace(me, host="another").lives()
    assert not replace(me, boot="of last week").lives()
    assert not replace(me, started=me.started + 1).lives()  # the number was given to another process since
    other = replace(me, host="far\x1b[2J", user="anna")
    assert "of anna, on far\\x1b[2J)" in str(other)
    lock = tmp_path / "run.lock"
    lock.write_text(sealed(json.dumps(asdict(replace(me, boot="of last week")))))
    assert in_words(lock).startswith(f"{me.pid}, which is dead")


@pytest.mark.parametrize("text", ["", "\0\0\0", "[1]", '{"pid": "1"}', '{"pid": true}', "-4", "[" * 4000])
def test_a_lock_file_that_says_nothing_is_no_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_text(text)
    assert holder_in(tmp_path / "run.lock") == Holder(0)
    assert holder_in(tmp_path / "absent") == Holder(0)
    (tmp_path / "run.lock").write_text("4242\n")
    assert holder_in(tmp_path / "run.lock").pid == 4242


RATES = """
import sys
from pathlib import Path
import engine.locks
from engine.dataset.sidecar import load_sidecar
engine.locks.FOLDER_PATIENCE_S = 60.0  # a loaded machine may take long
folder, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
notes = load_sidecar(folder)
for number in range(count):
    notes = notes.with_stars(f"{name}{number}.png", 1 + number % 5).save(folder)
"""


def rated(folder: Path, count: int) -> int:
    """Two processes rate ``count`` pictures each; how many ratings stand."""
    folder.mkdir(exist_ok=True)
    raters = [python(RATES, folder, name, count) for name in "ab"]
    for rater in raters:
        _, told = rater.communicate()
        assert rater.returncode == 0, told
    return len(load_sidecar(folder).pictures)


@pytest.mark.parametrize("count", [10, pytest.param(500, marks=pytest.mark.crash)])
def test_two_lorakilns_rating_the_same_dataset_lose_nothing(count: int, tmp_path: Path) -> None:
    assert rated(tmp_path / "data", count) == 2 * count
    figure("two at once", "ratings by two processes", f"{2 * count} of {2 * count} kept")


EDITS = """
import sys
from pathlib import Path
import engine.locks
from engine.dataset.edits import CaptionChanged, open_caption, write_caption
engine.locks.FOLDER_PATIENCE_S = 60.0
path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
base = open_caption(path)
for number in range(count):
    while True:
        try:
            base = write_caption(base, f"{base.text}{name}{number};")
            break
        except CaptionChanged as changed:
            base = changed.now
"""


@pytest.mark.parametrize("count", [10, pytest.param(500, marks=pytest.mark.crash)])
def test_two_lorakilns_editing_one_caption_lose_nothing(count: int, tmp_path: Path) -> None:
    """Each adds its words to what stands there: a write over the other's would lose words for good."""
    path = tmp_path / "cat.txt"
    path.write_text("")
    editors = [python(EDITS, path, name, count) for name in "ab"]
    for editor in editors:
        _, told = editor.communicate()
        assert editor.returncode == 0, told
    words = path.read_text().strip().strip(";").split(";")
    assert sorted(words) == sorted(f"{name}{number}" for name in "ab" for number in range(count))
    assert [each.name for each in tmp_path.iterdir()] == ["cat.txt"]
    figure("two at once", "edits of one caption by two processes", f"{2 * count} of {2 * count} kept")


def test_a_folder_that_stays_held_is_refused_with_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.locks, "FOLDER_PATIENCE_S", 0.05)
    code = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], 0), 2); print(1, flush=True); sys.stdin.read()"
    other = python(code, tmp_path)
    assert first_line(other) == "1"
    base = open_caption(tmp_path / "cat.txt")
    try:
        for save in (
            lambda: write_caption(base, "a cat"),
            lambda: load_sidecar(tmp_path).with_stars("a.png", 3).save(tmp_path),
        ):
            with pytest.raises(DatasetError, match=f"process {other.pid}") as refused:
                save()
            assert not isinstance(refused.value, CaptionChanged)
    finally:
        other.kill()
        other.wait()
    assert list(tmp_path.iterdir()) == []
    assert write_caption(base, "a cat").text == "a cat"


def test_a_file_system_that_cannot_lock_folders_is_written_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(_file: object, _how: int) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")  # what a network's file system says

    monkeypatch.setattr(fcntl, "flock", cannot)
    with alone_in(tmp_path):
        pass
    assert write_caption(open_caption(tmp_path / "cat.txt"), "a cat").text == "a cat"
