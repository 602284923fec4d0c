"""What a training step costs besides the model and the optimizer, and what the screen costs the run.

The engine's share is read from the events of a run on the pocket model without a screen: the wall time from the end
of one step to the end of the next, less the time in model and optimizer. The screen's share is a ratio within one
run in one process: phases without and with the screen alternate, so a busy machine hits both.
"""

from __future__ import annotations

import json
import os
import pty
import select
import struct
import sys
import tempfile
from fcntl import ioctl
from itertools import pairwise
from pathlib import Path
from statistics import median
from termios import TIOCSWINSZ

from engine.config import RunConfig
from engine.events import Entry, StepDone
from engine.run import Run
from profiles.starters import demo_config

WARM_UP, STEPS = 20, 200


def bench_config(folder: Path, steps: int) -> RunConfig:
    """The demo without samples and saves in between."""
    values = demo_config(folder).model_dump()
    values["training"] |= {"epochs": 0, "steps": steps}
    values["sampling"]["prompts"] = []
    values["saving"]["every_epochs"] = 0
    return RunConfig.model_validate(values)


def step_walls(entries: list[Entry]) -> list[tuple[float, StepDone]]:
    """Wall time from one step's event to the next, with the later event; only where they follow in step."""
    steps = [(entry.time, entry.event) for entry in entries if isinstance(entry.event, StepDone)]
    return [(after - before, event) for (before, _), (after, event) in pairwise(steps)]


def engine_overhead(folder: Path) -> dict[str, float]:
    """Shares of a step's wall time on the pocket model, in percent, and the median step in seconds."""
    run = Run(bench_config(folder, WARM_UP + STEPS))
    run.start()
    run.join()
    if run.exit_reason != "finished":
        raise SystemExit(f"the run {run.exit_reason}: {run.events.since(0)[-2:]}")
    walls = step_walls(run.events.since(0))[WARM_UP:]
    total = sum(wall for wall, _ in walls)
    model = sum(event.model_s for _, event in walls)
    optimizer = sum(event.optimizer_s for _, event in walls)
    return {
        "step_s": median(wall for wall, _ in walls),
        "model_percent": 100 * model / total,
        "optimizer_percent": 100 * optimizer / total,
        "data_percent": 100 * sum(event.data_s for _, event in walls) / total,
        "overhead_percent": 100 * (total - model - optimizer) / total,
    }


def screen_cost(folder: Path) -> dict[str, float]:
    """Steps per second with the screen relative to the phases around it, measured in a pty of 160 x 45."""
    result = folder / "phases.json"
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [sys.executable, "-m", "tests.bench.screen_phases", str(folder), str(result)])
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", 45, 160, 0, 0))
    sent = drain(terminal)
    _, status = os.waitpid(pid, 0)
    if status or not result.exists():
        raise SystemExit(f"the run with a screen ended with {os.waitstatus_to_exitcode(status)}:\n{sent[-2000:]!r}")
    rates: list[float] = json.loads(result.read_text())
    ratios = [rates[i] / ((rates[i - 1] + rates[i + 1]) / 2) for i in range(1, len(rates) - 1, 2)]
    return {
        "steps_per_s_without": median(rates[0::2]),
        "steps_per_s_with": median(rates[1::2]),
        "screen_cost_percent": 100 * (1 - median(ratios)),
        "screen_kilobytes": len(sent) / 1000,
    }


def drain(terminal: int) -> bytes:
    """Read what the child writes until it closes its terminal."""
    sent = bytearray()
    while select.select([terminal], [], [], 600)[0]:
        try:
            data = os.read(terminal, 65_536)
        except OSError:  # Linux says EIO when the other end is closed
            break
        if not data:
            break
        sent += data
    return bytes(sent)


def report() -> str:
    """All figures as a Markdown table with their limits."""
    with tempfile.TemporaryDirectory() as folder:
        engine = engine_overhead(Path(folder))
        screen = screen_cost(Path(folder))
    rates = f"{screen['steps_per_s_without']:.2f} / {screen['steps_per_s_with']:.2f}"
    rows = [
        ("engine overhead, screen off", f"{engine['overhead_percent']:.2f} %", "3 %"),
        ("... of it waiting for data", f"{engine['data_percent']:.2f} %", ""),
        ("model forward and backward", f"{engine['model_percent']:.2f} %", ""),
        ("optimizer and clipping", f"{engine['optimizer_percent']:.2f} %", ""),
        ("step of the pocket model", f"{engine['step_s'] * 1000:.0f} ms", ""),
        ("cost of the screen, in steps per second", f"{screen['screen_cost_percent']:.1f} %", "5 %"),
        ("steps per second without / with it", rates, ""),
        ("sent to the terminal", f"{screen['screen_kilobytes']:.0f} kB", ""),
    ]
    return "| | measured | limit |\n|---|---|---|\n" + "\n".join(f"| {a} | {b} | {c} |" for a, b, c in rows)


if __name__ == "__main__":
    print(report())
