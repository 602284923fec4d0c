"""Programs on pseudo-terminals: type, read, resize, hang up; and work folders whose hosts end with the test."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ALT_SCREEN_OFF = b"\x1b[?1049l"
CURSOR_ON = b"\x1b[?25h"
TIMEOUT_S = 60.0

FENCE = b"\x1b[c"
ANSWER = b"\x1b[?62;22c"

_TOKEN = re.compile(
    r"\x1b\[(\d*);?(\d*)H|\x1b\[[0-9;?<>=]*[ -/]*[@-~]|\x1b[_\]P][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.|.", re.S
)

_CLIENT = (
    "import json, sys\nfrom tui.__main__ import _tell_errors\nfrom tui.terminal.attach import attach\n"
    "sys.exit(_tell_errors(lambda: attach(json.loads(sys.argv[1]), entry='fake_host')))"
)


class Child:
    """A Python program in a child process on a pty of its own, which answers what every terminal answers.

    Args:
        words: the program's arguments for Python.
        folder: where it works.
        environment: what its environment has besides ours.
        size: columns and rows.
        answers: whether the terminal answers.
    """

    def __init__(
        self,
        *words: str,
        folder: Path,
        environment: dict[str, str] | None = None,
        size: tuple[int, int] = (120, 40),
        answers: bool = True,
    ) -> None:
        self.seen = b""
        self._answers = answers
        self._answered = 0
        paths = os.pathsep.join(str(ROOT / part) for part in (".", "tests", "tests/tui", "tests/pty"))
        before = {"TERM": "xterm-256color", "PYTHONPATH": paths, "LC_ALL": "C.UTF-8"}
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            for number in (signal.SIGINT, signal.SIGQUIT):  # ignored where the tests run in a script's background
                signal.signal(number, signal.SIG_DFL)
            os.chdir(folder)
            os.environ.update(before | (environment or {}))
            os.execv(sys.executable, [sys.executable, *words])
        self.resize(*size)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size; the kernel tells the child."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds: float) -> bytes:
        """Read what comes within ``seconds``."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.read_some():
            pass
        return self.seen

    def read_some(self) -> bool:
        """Read what comes next, waiting for it a moment; False when the other end is closed."""
        if not select.select([self.master], [], [], 0.05)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.seen += data
        self._answer()
        return bool(data)

    def until(self, wanted: bytes, since: int = 0, patience_s: float = TIMEOUT_S) -> None:
        """Read until ``wanted`` has come."""
        self.wait_for(lambda: wanted in self.seen[since:], repr(wanted), patience_s)

    def until_shown(self, wanted: str) -> None:
        """Read until ``wanted`` stands on the screen."""
        self.wait_for(lambda: wanted in self.screen(), repr(wanted))

    def screen(self) -> str:
        """What stands on the screen: all that was seen, put in its places. Wide characters count as one cell."""
        cells: dict[tuple[int, int], str] = {}
        row = column = 1
        for token in _TOKEN.finditer(self.seen[self.seen.rfind(b"\x1b[?1049h") :].decode("utf-8", "replace")):
            text = token.group()
            if text[0] == "\x1b":
                if text.endswith("H"):
                    row, column = int(token[1] or 1), int(token[2] or 1)
            elif text == "\n":
                row += 1
            elif text == "\r":
                column = 1
            else:
                cells[row, column] = text
                column += 1
        lines = [""] * (max((row for row, _ in cells), default=0) + 1)
        for (row, column), text in sorted(cells.items()):
            lines[row] = lines[row].ljust(column - 1) + text
        return "\n".join(lines)

    def wait_for(self, condition: Callable[[], bool], what: str = "it", patience_s: float = TIMEOUT_S) -> None:
        """Read until ``condition`` holds."""
        end = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < end, f"{what} did not come; the end of the screen: {self.seen[-400:]!r}"
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

    def hang_up(self) -> None:
        """Lose the terminal, as when a connection drops."""
        os.close(self.master)
        self.master = os.open(os.devnull, os.O_RDONLY)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the child."""
        os.kill(self.pid, number)

    def close(self) -> None:
        """End the child if a test left it."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)

    def _answer(self) -> None:
        asked = self.seen.count(FENCE)
        while self._answers and self._answered < asked:
            self._answered += 1
            os.write(self.master, ANSWER)


class Work:
    """A work folder with a short path, so that its socket lies beside it; its host is ended with it."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="kiln-"))
        self.folder = self.root / "work"
        self.runs = self.folder / "runs"
        self.folder.mkdir()
        self.environment = {"XDG_STATE_HOME": str(self.root), "LORAKILN_SETTINGS": str(self.root / "settings.toml")}
        self._children: list[Child] = []

    def program(self, *words: str, **options: Any) -> Child:
        """Start a program here."""
        environment = self.environment | options.pop("environment", {})
        child = Child(*words, folder=self.folder, environment=environment, **options)
        self._children.append(child)
        return child

    def fake(self, *options: str, **settings: Any) -> Child:
        """A fake run full screen in the foreground; it has no end of its own, however slow the machine is."""
        words = ("-m", "fake_run", "--runs-dir", str(self.runs), "--epochs", "6000", "--step-s", "0.05")
        return self.program(*words, *options, **settings)

    def attach(self, order: dict[str, str | bool] | None = None, **settings: Any) -> Child:
        """A client of this folder's host, which is started if none runs; it knows fake runs."""
        return self.program("-c", _CLIENT, json.dumps(order or {}), **settings)

    def fake_order(self, step_s: float = 0.05, **options: str) -> dict[str, str | bool]:
        """An order for a fake run."""
        return {"command": "fake", "runs_dir": str(self.runs), "step_s": str(step_s), **options}

    def info(self) -> dict[str, Any]:
        """What the host says of itself; empty while there is none."""
        for path in (self.root / "lorakiln/hosts").glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                return dict(json.loads(path.read_text()))
        return {}

    def host(self) -> int:
        """The host's process."""
        return int(self.info()["pid"])

    def host_is_alive(self) -> bool:
        """Whether a host listens or ends."""
        for path in (self.root / "lorakiln/hosts").glob("*.lock"):
            with open(path, "rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    return True
        return False

    def run(self) -> Path:
        """The folder of the only run."""
        (folder,) = self.runs.iterdir()
        return folder

    def events(self) -> str:
        """The only run's events; nothing as long as it has none."""
        return "".join(path.read_text() for path in self.runs.glob("*/events.jsonl"))

    def step(self) -> int:
        """The last step that the run told."""
        return max(map(int, re.findall(r'"type": "StepDone", "step": (\d+)', self.events())), default=0)

    def log(self) -> str:
        """What the host wrote besides the screen."""
        return (self.folder / ".kiln/host.log").read_text()

    def close(self) -> None:
        """End everything that was started here."""
        for child in self._children:
            child.close()
        if self.host_is_alive() and self.info():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.host(), signal.SIGKILL)
        wait_until(lambda: not self.host_is_alive())
        shutil.rmtree(self.root, ignore_errors=True)


def assert_restored(child: Child) -> None:
    """The terminal is as a shell expects it: normal screen, cursor, no mouse, echo."""
    for off in (ALT_SCREEN_OFF, CURSOR_ON, b"\x1b[?1000l", b"\x1b[?1003l", b"\x1b[?1006l", b"\x1b[?2004l"):
        on = off[:-1] + (b"l" if off.endswith(b"h") else b"h")
        assert child.seen.rfind(off) > child.seen.rfind(on), off
    assert has_echo(child)


def has_echo(child: Child) -> bool:
    """Whether the terminal echoes and edits lines."""
    wanted = termios.ECHO | termios.ICANON | termios.ISIG
    return bool(termios.tcgetattr(child.master)[3] & wanted == wanted)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
