"""How soon the command answers: `kiln --help`, and the first frame of the full screen."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from fcntl import ioctl
from statistics import median
from termios import TIOCSWINSZ

REPEATS = 5


def help_s() -> float:
    """Median time of `kiln --help`, in seconds."""
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tui", "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - begin)
    return median(times)


def first_frame_s() -> float:
    """Median time from the command to the first painted frame (its panes are named in it), in seconds."""
    return median(_first_frame_s() for _ in range(REPEATS))


def _first_frame_s() -> float:
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ["TERM"] = "xterm-256color"
            os.execv(sys.executable, [sys.executable, "-m", "tui", "demo", "--runs-dir", folder])
        ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", 45, 160, 0, 0))
        seen, painted = bytearray(), 0.0
        while select.select([terminal], [], [], 60)[0]:
            try:
                seen += os.read(terminal, 65_536)
            except OSError:  # Linux says EIO when the other end is closed
                break
            if not painted and b"Samples" in seen and b"Log" in seen:
                painted = time.perf_counter() - begin
                os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        return painted or float("nan")


def report() -> str:
    """Both figures as a Markdown table with their limits."""
    rows = [("kiln --help", help_s(), 0.5), ("first frame of the full screen", first_frame_s(), 0.7)]
    table = "\n".join(f"| {name} | {seconds:.2f} s | {limit} s |" for name, seconds, limit in rows)
    return f"| median of {REPEATS} | measured | limit |\n|---|---|---|\n{table}"


if __name__ == "__main__":
    print(report())
