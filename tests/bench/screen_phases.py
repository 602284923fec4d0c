"""The child of the screen benchmark: one run, phases without and with the full screen, steps per second of each."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

from engine.commands import StopNow
from engine.events import StepDone
from engine.run import Run
from tests.bench.bench_overhead import bench_config
from tui.app import KilnApp
from tui.terminal.driver import own_terminal
from tui.workplace import Workplace

PHASES, PHASE_S, SETTLE_S = 15, 6.0, 2.0
"""Odd phases have the screen, so it is framed by phases without. What happens while a phase settles, when the screen
is built or taken down, is not counted: it is paid once in a run of hours."""

WARM_UP_STEPS, MOST_STEPS = 20, 8000


def step_times(run: Run) -> list[float]:
    """When each step was done."""
    return [entry.time for entry in run.events.since(0) if isinstance(entry.event, StepDone)]


def show(run: Run, seconds: float) -> None:
    """Show the full screen for so long."""
    with own_terminal() as terminal:
        app = KilnApp(Workplace.around(run), terminal=terminal)
        timer = threading.Timer(seconds, lambda: app.call_from_thread(app.exit))
        timer.start()
        app.run()
        timer.join()


def main(folder: Path, result: Path) -> None:
    """Run all phases and write their rates."""
    run = Run(bench_config(folder, MOST_STEPS))
    run.start()
    while run.alive and len(step_times(run)) < WARM_UP_STEPS:
        time.sleep(0.2)
    begins = []
    for number in range(PHASES):
        begins.append(time.time())
        if number % 2:
            show(run, PHASE_S)
        else:
            time.sleep(PHASE_S)
    run.submit(StopNow())
    run.join()
    rates = []
    for begin in begins:
        counted = [at for at in step_times(run) if begin + SETTLE_S <= at < begin + PHASE_S]
        rates.append((len(counted) - 1) / (counted[-1] - counted[0]))
    result.write_text(json.dumps(rates))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
