"""A program of the user's on a copy: never the original, never a shell, ended with what it started."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.errors import DatasetError
from tui.outside import run_on_copy


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code, "{in}", "{out}"]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "$(touch pwned); a.png"
    path.write_bytes(b"picture")
    return path


def test_it_works_on_a_copy_which_goes_afterwards(picture: Path) -> None:
    code = "import sys; data = open(sys.argv[1], 'rb').read(); open(sys.argv[1], 'wb').write(b'spoiled');" \
        "open(sys.argv[2], 'wb').write(data * 2)"  # fmt: skip
    with run_on_copy(python(code), picture, threading.Event()) as made:
        assert made.read_bytes() == b"picturepicture"
    assert picture.read_bytes() == b"picture" and not made.exists() and not made.parent.exists()
    assert sorted(path.name for path in picture.parent.iterdir()) == [picture.name]


@pytest.mark.parametrize(
    ("command", "match"),
    [
        (["/nonexistent/upscaler", "{in}", "{out}"], "does not start"),
        (python("import sys; print('no \\x1b[2J memory'); sys.exit(3)"), "exit code 3. no .* memory"),
        (python("pass"), "is not there"),
        (["printf", "%s", "{in}", "{out}; touch pwned"], "is not there"),
    ],
)
def test_what_fails_is_said_harmlessly(picture: Path, command: list[str], match: str) -> None:
    with pytest.raises(DatasetError, match=match) as told, run_on_copy(command, picture, threading.Event()):
        raise AssertionError("nothing was made")
    assert "\x1b" not in str(told.value) and not list(picture.parent.glob("pwned"))


def test_cancelling_ends_what_it_started_too(picture: Path, tmp_path: Path) -> None:
    note = tmp_path / "child"
    code = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        f"open({str(note)!r} + '.part', 'w').write(str(p.pid)); import os; os.rename({str(note)!r} + '.part', "
        f"{str(note)!r}); print('50 %', flush=True); time.sleep(60)"
    )
    cancel, heard = threading.Event(), []

    def tell(words: str) -> None:
        heard.append(words)
        if note.exists() and "50 %" in words:
            cancel.set()

    with pytest.raises(DatasetError, match="was cancelled"), run_on_copy(python(code), picture, cancel, tell):
        raise AssertionError("nothing was made")
    child = int(note.read_text())
    end = time.monotonic() + 10
    while _alive(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
