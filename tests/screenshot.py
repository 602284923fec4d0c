"""Exports pictures of the real screen on a real run of the demonstration: ``python -m tests.screenshot DIR``."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from textual.pilot import Pilot

from engine.commands import StopNow
from engine.run import Run
from profiles.recipes import demo_config
from tui.app import KilnApp
from tui.view import RunView

SIZES = {"training": (160, 45), "training-80x24": (80, 24)}
WAITING = "░" * 20
"""What a picture that is not drawn yet looks like."""

LEFT = 0.35
"""Part of the run that is still ahead in the picture."""


def shows_concept(view: RunView) -> bool:
    """Whether the newest sample, which the screen shows, is of the concept."""
    return bool(view.samples) and "zorple" in view.samples[-1].prompt and view.state != "sampling"


def worth_a_picture(view: RunView) -> bool:
    """Whether the run is training, and far enough."""
    far = view.steps > 0 and view.step >= (1 - LEFT) * view.steps
    return far and shows_concept(view) and view.state == "training"


async def drawn(app: KilnApp, pilot: Pilot[None]) -> str:
    """The screen as SVG, once the threads that shrink pictures have caught up."""
    for _ in range(50):
        await pilot.pause(0.2)
        svg = app.export_screenshot(title="kiln demo")
        if WAITING not in svg and shows_concept(app.bridge.view):
            break
    return svg


async def photograph(folder: Path, out: Path) -> None:
    """Run the demonstration and export the screen near its end, in every size."""
    run = Run(demo_config(folder))
    app = KilnApp(run, ascii_terminal=False)
    first = next(iter(SIZES.values()))
    async with app.run_test(size=first) as pilot:
        while not worth_a_picture(app.bridge.view):
            await pilot.pause(0.1)
            if run.exit_reason is not None:
                raise SystemExit(f"the run {run.exit_reason} before there was a picture to take")
        for name, size in SIZES.items():
            await pilot.resize_terminal(*size)
            svg = await drawn(app, pilot)
            path = out / f"{name}.svg"
            path.write_text(svg, encoding="utf-8")
            print(path)
    run.submit(StopNow())
    run.join()


if __name__ == "__main__":
    destination = Path(sys.argv[1])
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as runs:
        asyncio.run(photograph(Path(runs), destination))
