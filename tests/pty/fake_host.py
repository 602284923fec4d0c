"""A host's process that knows fake runs besides real ones."""

from __future__ import annotations

import sys
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
    run = FakeRun(Path(order["runs_dir"]), step_s=float(order["step_s"]), epochs=int(order.get("epochs", "6000")))
    if "noise" in order:
        make_noise(run)
    if "crash" in order:
        plan_crash()
    return run


if __name__ == "__main__":
    sys.exit(main(make_run=make_run))
