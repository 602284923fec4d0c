"""A host's process that knows fake runs besides real ones, and tells on request what it holds."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from fake_run import FakeRun, make_noise, plan_crash

from tui.bridge import RunLike
from tui.terminal.orders import run_for
from tui.terminal.process import main


def make_run(order: dict[str, Any]) -> RunLike | None:
    """The run that ``order`` asks for."""
    if order.get("command") != "fake":
        return run_for(order)
    run = FakeRun(
        Path(order["runs_dir"]),
        step_s=float(order["step_s"]),
        epochs=int(order.get("epochs", "6000")),
        fail_at=int(order.get("fail_at", "0")),
    )
    if "noise" in order:
        make_noise(run)
    if "crash" in order:
        plan_crash(str(order["crash"]))
    return run


def tell_holdings(path: Path) -> None:
    """On SIGUSR1, write what this process holds to ``path``: objects by type, threads, descriptors."""

    def write(number: int, frame: object) -> None:
        gc.unfreeze()  # a screen that is up froze itself against being looked at
        gc.collect()
        table = {
            "objects": dict(_objects_by_type()),
            "threads": sorted(thread.name for thread in threading.enumerate()),
            "descriptors": len(os.listdir("/proc/self/fd")),
        }
        part = path.with_suffix(".part")
        part.write_text(json.dumps(table))
        os.replace(part, path)

    signal.signal(signal.SIGUSR1, write)


def _objects_by_type() -> Counter[str]:
    """How many objects there are of each type, looked at while no other thread has its turn.

    A tuple that another thread is still filling must be known to that thread alone when it goes on: CPython ends it
    with a SystemError otherwise.
    """
    former = sys.getswitchinterval()
    sys.setswitchinterval(60)
    try:
        return Counter(f"{type(found).__module__}.{type(found).__qualname__}" for found in gc.get_objects())
    finally:
        sys.setswitchinterval(former)


if __name__ == "__main__":
    tell_holdings(Path(sys.argv[1]) / "holdings.json")
    sys.exit(main(make_run=make_run))
