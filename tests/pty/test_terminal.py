"""The screen in a real pseudo-terminal: it paints, obeys keys and signals, and always gives the terminal back."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pocket import pocket_config

from engine.config_file import save_config

pytestmark = pytest.mark.pty

ROOT = Path(__file__).resolve().parents[2]
ALT_SCREEN_OFF = b"\x1b[?1049l"
CURSOR_ON = b"\x1b[?25h"
TIMEOUT_S = 60.0


class Child:
    """A Python program in a child process on a pty of its own: a fake run full screen unless another is named."""

    def __init__(
        self,
        runs_dir: Path,
        *options: str,
        environment: dict[str, str] | None = None,
        program: tuple[str, ...] = (),
    ) -> None:
        self.seen = b""
        self.ended_at = 0
        before = {"TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "tui")])}
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.environ.update(before | {"LC_ALL": "C.UTF-8"} | (environment or {}))
            program = program or ("-m", "fake_run", "--runs-dir", str(runs_dir), *options)
            os.execv(sys.executable, [sys.executable, *program])
        self.resize(120, 40)
        self.termios = termios.tcgetattr(self.master)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size; the kernel tells the child."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds: float) -> bytes:
        """Read what comes within ``seconds``."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not select.select([self.master], [], [], 0.05)[0]:
                continue
            try:
                data = os.read(self.master, 65536)
            except OSError:  # the other end is closed
                break
            if not data:
                break
            self.seen += data
        return self.seen

    def until(self, wanted: bytes, since: int = 0) -> None:
        """Read until ``wanted`` has come."""
        end = time.monotonic() + TIMEOUT_S
        while wanted not in self.seen[since:]:
            assert time.monotonic() < end, f"{wanted!r} did not come; the end of it: {self.seen[-400:]!r}"
            self.read(0.1)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self.master, keys.encode())

    def wait(self) -> int:
        """Read to the end; the exit code, or minus the signal that ended it."""
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            self.read(0.1)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                self.read(0.2)
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"the child did not end: {self.seen[-400:]!r}")

    def close(self) -> None:
        """End the child if a test left it."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)


@pytest.fixture
def children() -> Iterator[list[Child]]:
    """Children to be closed after the test."""
    started: list[Child] = []
    yield started
    for child in started:
        child.close()


def assert_restored(child: Child) -> None:
    """The terminal is as a shell expects it: normal screen, cursor, no mouse, echo."""
    tail = child.seen
    for off in (ALT_SCREEN_OFF, CURSOR_ON, b"\x1b[?1000l", b"\x1b[?1003l", b"\x1b[?2004l"):
        on = off[:-1] + (b"l" if off.endswith(b"h") else b"h")
        assert tail.rfind(off) > tail.rfind(on), off
    assert termios.tcgetattr(child.master)[3] & (termios.ECHO | termios.ICANON) == termios.ECHO | termios.ICANON


def test_keys_and_leaving(tmp_path: Path, children: list[Child]) -> None:
    child = Child(tmp_path, "--step-s", "0.05")
    children.append(child)
    child.until(b"TRAINING")
    child.press(" ")
    child.until(b"PAUSED")
    at = len(child.seen)
    child.resize(80, 24)
    child.until(b"1 Loss", at)
    child.press("q")
    child.until(b"Leave lorakiln")
    child.press("s")
    assert child.wait() == 3  # stopped on request
    assert_restored(child)
    (run,) = tmp_path.iterdir()
    assert list(run.glob("*.safetensors"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signals_save_stop_and_restore(tmp_path: Path, children: list[Child], number: int, code: int) -> None:
    child = Child(tmp_path, "--step-s", "0.05")
    children.append(child)
    child.until(b"TRAINING")
    os.kill(child.pid, number)
    assert child.wait() == code
    assert_restored(child)
    (run,) = tmp_path.iterdir()
    assert list(run.glob("*.safetensors"))
    assert '"RunDone"' in (run / "events.jsonl").read_text()


def test_noise_from_c_goes_to_the_log(tmp_path: Path, children: list[Child]) -> None:
    child = Child(tmp_path, "--step-s", "0.05", "--noise")
    children.append(child)
    child.until(b"TRAINING")
    (run,) = tmp_path.iterdir()
    end = time.monotonic() + TIMEOUT_S
    while "printed by Python" not in _text(run / "log.txt") or "written by C" not in _text(run / "log.txt"):
        assert time.monotonic() < end
        child.read(0.1)
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait() == 143
    assert b"written by C" not in child.seen and b"printed by Python" not in child.seen


def test_an_error_of_the_screen_restores_and_is_told(tmp_path: Path, children: list[Child]) -> None:
    child = Child(tmp_path, "--step-s", "0.05", "--crash")
    children.append(child)
    assert child.wait() == 1
    assert_restored(child)
    assert b"a crash for the test" in child.seen and b"Traceback" in child.seen
    (run,) = tmp_path.iterdir()
    assert list(run.glob("*.safetensors"))  # the run was saved


def test_a_lost_terminal_saves_the_run(tmp_path: Path, children: list[Child]) -> None:
    child = Child(tmp_path, "--step-s", "0.05")
    children.append(child)
    child.until(b"TRAINING")
    os.close(child.master)
    child.master = os.open(os.devnull, os.O_RDONLY)
    end = time.monotonic() + TIMEOUT_S
    while os.waitpid(child.pid, os.WNOHANG)[0] == 0:
        assert time.monotonic() < end
        time.sleep(0.05)
    child.pid = 0
    (run,) = tmp_path.iterdir()
    assert '"RunDone"' in (run / "events.jsonl").read_text()


def test_a_locale_without_unicode_gets_ascii(tmp_path: Path, children: list[Child]) -> None:
    child = Child(tmp_path, "--step-s", "0.05", environment={"LC_ALL": "C"})
    children.append(child)
    child.until(b"* TRAINING")
    child.read(0.6)
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait() == 143
    assert child.seen.isascii()


def test_a_configuration_is_trained_full_screen_to_its_end(tmp_path: Path, children: list[Child]) -> None:
    save_config(pocket_config(tmp_path, training={"steps": 1}), tmp_path / "run.toml")
    code = "import sys; from tui.__main__ import main; sys.exit(main(['train', sys.argv[1], '--ui']))"
    child = Child(tmp_path, program=("-c", code, str(tmp_path / "run.toml")))
    children.append(child)
    child.until(b"FINISHED")
    child.press("q")
    assert child.wait() == 0
    assert_restored(child)
    assert b"Run test finished at step 1 of 1." in child.seen
    assert (tmp_path / "runs/test/test.safetensors").is_file()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
