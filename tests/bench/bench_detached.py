"""What a host costs while nobody looks: share of a core, with and without a run, beside the run's own threads.

The processor time of every thread of the host but the engine's is added up over some seconds, from /proc.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from engine.config_file import save_config
from tests.bench.bench_overhead import bench_config
from tests.pty.children import Work, wait_until

WATCH_S = 20.0
SETTLE_S = 5.0
"""What leaving costs (the screen is taken down, garbage is looked for) is paid once, not counted."""

_TICKS = os.sysconf("SC_CLK_TCK")


def thread_s(pid: int) -> dict[str, float]:
    """Processor time of every thread of a process, in seconds; by number and name."""
    spent = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        spent[f"{task.name} {name}"] = (int(fields[11]) + int(fields[12])) / _TICKS
    return spent


def host_percent(pid: int, engine: str) -> float:
    """Share of a core, in percent, of all threads that are there all the time, ``engine`` excepted."""
    time.sleep(SETTLE_S)
    before, begin = thread_s(pid), time.monotonic()
    time.sleep(WATCH_S)
    after, spent = thread_s(pid), time.monotonic() - begin
    used = sum(after[key] - before[key] for key in after.keys() & before.keys() if key != engine)
    return 100 * used / spent


def busiest(pid: int) -> str:
    """The thread that has worked most lately: the engine's, in a host that trains."""
    before = thread_s(pid)
    time.sleep(2.0)
    after = thread_s(pid)
    return max(after.keys() & before.keys(), key=lambda key: after[key] - before[key])


def idle_percent() -> float:
    """Detached, without a run."""
    work = Work()
    try:
        child = work.program("-m", "tui")
        child.until(b"1 Dataset")
        child.read(2.0)
        child.press("\x1c")
        child.wait()
        return host_percent(work.host(), "")
    finally:
        work.close()


def training_percent() -> float:
    """Detached, while the pocket model trains."""
    work = Work()
    try:
        save_config(bench_config(work.folder, 100_000), work.folder / "bench.toml")
        child = work.program("-m", "tui", "train", "bench.toml", "--ui", environment={"OMP_NUM_THREADS": "1"})
        child.until(b"TRAINING")
        child.press("\x1c")
        child.wait()
        wait_until(lambda: bool(work.info()))
        return host_percent(work.host(), busiest(work.host()))
    finally:
        work.close()


def report() -> str:
    """Both figures as a Markdown table with the limit."""
    rows = (("no run", idle_percent()), ("while the pocket model trains, its own thread apart", training_percent()))
    table = "\n".join(f"| {name} | {percent:.2f} % | 1 % |" for name, percent in rows)
    return f"| host, detached | of a core | limit |\n|---|---|---|\n{table}"


if __name__ == "__main__":
    print(report())
