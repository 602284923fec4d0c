"""Looking at an app under test: waiting for what will be, and reading what is on the screen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot


async def until(pilot: Pilot[Any], condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Let the app go on until ``condition`` holds and what it was asked by then is done."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"waited in vain before this screen:\n{text_of(pilot.app)}"
        await asyncio.sleep(0.02)
    await pilot.pause()


def text_of(app: Any) -> str:
    """The text on the screen."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())
