"""How soon the command answers: `kiln --help`, and the first frame of the full screen on every way to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

from tests.pty.children import Child, Work

REPEATS = 5

PAINTED = (b"Dataset", b"Caption", b"Training", b"Log")
"""Titles of panes: all of them are in the first frame."""


def help_s() -> float:
    """Median time of `kiln --help`, in seconds."""
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tui", "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - begin)
    return median(times)


def first_frame_s(*words: str) -> float:
    """From `kiln WORDS` in an empty folder to its painted panes, in seconds; the host is started by it."""
    work = Work()
    try:
        return painted_s(lambda: work.program("-m", "tui", *words, size=(160, 45)))
    finally:
        end(work)


def attached_s() -> float:
    """The same where the host runs already."""
    work = Work()
    try:
        first = work.program("-m", "tui", size=(160, 45))
        wait_painted(first)
        first.kill(signal.SIGTERM)
        first.wait()
        return painted_s(lambda: work.program("-m", "tui", "attach", size=(160, 45)))
    finally:
        end(work)


def painted_s(start: Callable[[], Child]) -> float:
    """From ``start`` to the first frame."""
    begin = time.perf_counter()
    wait_painted(start())
    return time.perf_counter() - begin


def wait_painted(child: Child) -> None:
    """Read until every pane's title has come."""
    while not all(title in child.seen for title in PAINTED):
        assert child.read_some(), child.seen[-400:]


def end(work: Work) -> None:
    """End the host, politely."""
    if work.info():
        os.kill(work.host(), signal.SIGTERM)
    work.close()


def report() -> str:
    """All figures as a Markdown table with their limits."""
    rows = [
        ("`kiln --help`", help_s(), 0.5),
        ("`kiln`: first frame, the host not running", median(first_frame_s() for _ in range(REPEATS)), 0.7),
        ("`kiln demo`: the same", median(first_frame_s("demo") for _ in range(REPEATS)), 0.7),
        ("`kiln --foreground`: without a host", median(first_frame_s("--foreground") for _ in range(REPEATS)), 0.7),
        ("`kiln attach`: first frame, the host running", median(attached_s() for _ in range(REPEATS)), 0.7),
    ]
    table = "\n".join(f"| {name} | {seconds:.2f} s | {limit} s |" for name, seconds, limit in rows)
    return f"| median of {REPEATS} | measured | limit |\n|---|---|---|\n{table}"


if __name__ == "__main__":
    print(report())
