"""Exports pictures of the real screen on a real run of the demonstration: ``python -m tests.screenshot DIR``."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from engine.commands import StopNow
from engine.run import Run
from profiles.recipes import demo_config
from tui.app import KilnApp

SIZES = {"training": (160, 45), "training-80x24": (80, 24)}
LEFT = 0.25
"""Part of the run that is still ahead in the picture."""


async def photograph(folder: Path, out: Path) -> None:
    """Run the demonstration and export the screen near its end, in every size."""
    run = Run(demo_config(folder))
    app = KilnApp(run, ascii_terminal=False)
    first = next(iter(SIZES.values()))
    async with app.run_test(size=first) as pilot:
        view = app.bridge.view
        while not view.steps or view.step < (1 - LEFT) * view.steps:
            await pilot.pause(0.5)
            view = app.bridge.view
            if not run.alive and view.failure is not None:
                raise SystemExit(f"the run failed: {view.failure.title}")
        for name, size in SIZES.items():
            await pilot.resize_terminal(*size)
            await pilot.pause(2.0)
            path = out / f"{name}.svg"
            path.write_text(app.export_screenshot(title="kiln demo"), encoding="utf-8")
            print(path)
    run.submit(StopNow())
    run.join()


if __name__ == "__main__":
    destination = Path(sys.argv[1])
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as runs:
        asyncio.run(photograph(Path(runs), destination))
