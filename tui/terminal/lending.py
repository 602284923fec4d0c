"""Lends the terminal to another program while the screen waits, and takes it back.

The screen's loop goes on meanwhile: events are taken, signals heard, other terminals may call. Only what would be
drawn is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tui.app import KilnApp
    from tui.terminal.driver import Terminal


async def lend(app: KilnApp, terminal: Terminal, work: Callable[[], str]) -> str:
    """What ``work`` returns: it runs in a thread and has the terminal, as it was before the screen came.

    A screen that ends meanwhile does not wait for it: whoever ends the screen ends the program too.
    """
    driver, loop = app._driver, asyncio.get_running_loop()
    assert driver is not None
    done: asyncio.Future[str] = loop.create_future()

    def settle(said: str) -> None:
        if not done.done():
            done.set_result(said)

    def run() -> None:
        said = work()
        with contextlib.suppress(RuntimeError):  # the loop is closed: the screen has ended
            loop.call_soon_threadsafe(settle, said)

    driver.suspend_application_mode()
    terminal.lent = True
    terminal.restore_input()
    # No thread of the loop's own pool: that one is waited for at the end.
    threading.Thread(target=run, name="lent", daemon=True).start()
    try:
        return await done
    finally:
        terminal.lent = False
        if not app.leaving:
            driver.resume_application_mode()
            app.screen.refresh(layout=True)
