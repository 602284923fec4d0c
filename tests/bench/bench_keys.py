"""How soon a key shows while the pocket model trains: typed into the filter of the dataset pane, over a terminal.

The everyday path is measured: a client on a pseudo-terminal of 160 x 45, the host with the screen and the engine in
its one process. A key counts from the moment it is written until the text typed so far is read back.
"""

from __future__ import annotations

import contextlib
import os
import pty
import random
import re
import select
import signal
import string
import struct
import sys
import tempfile
import time
from fcntl import ioctl
from pathlib import Path
from statistics import median, quantiles
from termios import TIOCSWINSZ

from engine.config_file import save_config
from tests.bench.bench_overhead import bench_config

KEYS, WORD = 200, 10
"""Keys timed, and how many make a filter before it is emptied."""

LIMIT_MS = 100
PATIENCE_S = 60.0
_SEQUENCE = re.compile(rb"\x1b(\[[0-9;?<>=]*[A-Za-z]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][A-Z0-9])")


class Typist:
    """A terminal with `kiln` in it, and somebody who types."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ |= {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
            os.execv(sys.executable, [sys.executable, "-m", "tui", *words])
        ioctl(self.terminal, TIOCSWINSZ, struct.pack("HHHH", 45, 160, 0, 0))
        self.seen = bytearray()

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self.terminal, keys.encode())

    def until(self, wanted: bytes, since: int) -> float:
        """Read until ``wanted`` shows in what came after ``since``; when it did."""
        end = time.perf_counter() + PATIENCE_S
        while wanted not in _SEQUENCE.sub(b"", bytes(self.seen[since:])):
            if time.perf_counter() > end:
                raise SystemExit(f"{wanted!r} was never shown; the end of it: {bytes(self.seen[-500:])!r}")
            if select.select([self.terminal], [], [], 0.5)[0]:
                self.seen += os.read(self.terminal, 65_536)
        return time.perf_counter()

    def pass_time(self, seconds: float) -> None:
        """Read on for so long."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            if select.select([self.terminal], [], [], left)[0]:
                self.seen += os.read(self.terminal, 65_536)

    def close(self) -> None:
        """Leave and stop the run."""
        self.press("\x1b")
        self.pass_time(0.5)
        self.press("\x1b")
        self.pass_time(0.5)
        self.press("q")
        self.pass_time(1.0)
        self.press("s")
        with contextlib.suppress(OSError):  # the terminal closes with the client
            self.pass_time(20)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


def key_times_ms() -> list[float]:
    """Milliseconds from key to echo, for each of ``KEYS`` keys at irregular intervals."""
    draw = random.Random(5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_config(bench_config(folder, 100_000), folder / "bench.toml")
        typist = Typist(folder, "train", "bench.toml", "--ui")
        try:
            typist.until(b"TRAINING", 0)
            typist.pass_time(5.0)
            typist.press("1/")
            typist.pass_time(1.0)
            return [one for _ in range(KEYS // WORD) for one in _word(typist, draw)]
        finally:
            typist.close()


def _word(typist: Typist, draw: random.Random) -> list[float]:
    typed, times = "", []
    for _ in range(WORD):
        typed += draw.choice(string.ascii_lowercase)
        before = len(typist.seen)
        pressed = time.perf_counter()
        typist.press(typed[-1])
        times.append((typist.until(typed.encode(), before) - pressed) * 1000)
        typist.pass_time(draw.uniform(0.05, 0.3))
    typist.press("\x7f" * WORD)
    typist.pass_time(0.8)
    return times


def report() -> str:
    """The figures as a Markdown table."""
    times = key_times_ms()
    p95 = quantiles(times, n=20)[-1]
    return (
        "| key to echo while the pocket model trains | measured | limit |\n|---|---|---|\n"
        f"| median of {len(times)} keys | {median(times):.0f} ms | |\n"
        f"| 95th percentile | {p95:.0f} ms | {LIMIT_MS} ms |\n"
        f"| longest | {max(times):.0f} ms | |"
    )


if __name__ == "__main__":
    print(report())
