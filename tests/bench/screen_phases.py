"""The child of the screen benchmark: one run, phases without and with the full screen, steps per second of each."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

from engine.events import StepDone
from engine.run import Run
from tests.bench.bench_overhead import PHASE_STEPS, PHASES, WARM_UP, bench_config
from tui.app import KilnApp
from tui.terminal import own_terminal

SETTLE = 4
"""Steps at the start of a phase that are not counted: the screen is being built, or taken down."""


def step_times(run: Run) -> dict[int, float]:
    """When each step was done."""
    return {entry.event.step: entry.time for entry in run.events.since(0) if isinstance(entry.event, StepDone)}


def wait_for(run: Run, step: int) -> None:
    """Return when ``step`` is done, or the run is over."""
    while run.alive and step not in step_times(run):
        time.sleep(0.2)


def show_until(run: Run, step: int) -> None:
    """Show the full screen until ``step`` is done."""
    with own_terminal() as terminal:
        app = KilnApp(run, terminal=terminal)

        def leave() -> None:
            wait_for(run, step)
            app.call_from_thread(app.exit)

        watcher = threading.Thread(target=leave)
        watcher.start()
        app.run()
        watcher.join()


def main(folder: Path, result: Path) -> None:
    """Run all phases and write their rates."""
    ends = [WARM_UP + (number + 1) * PHASE_STEPS for number in range(PHASES)]
    run = Run(bench_config(folder, ends[-1] + 1))
    run.start()
    wait_for(run, WARM_UP)
    for number, end in enumerate(ends):
        if number % 2:
            show_until(run, end)
        else:
            wait_for(run, end)
    run.join()
    at = step_times(run)
    counted = PHASE_STEPS - SETTLE
    result.write_text(json.dumps([counted / (at[end] - at[end - counted]) for end in ends]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
