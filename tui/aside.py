"""Slow work in a thread, for a screen or widget that waits for it without holding up the others.

While a screen is taken down its children go before it does. An answer that comes in between would be shown in
widgets that are gone, so it is dropped here, for all who ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

from textual.dom import DOMNode

Result = TypeVar("Result")


async def aside(node: DOMNode, pool: Executor | None, job: Callable[..., Result], *args: Any) -> Result:
    """What ``job(*args)`` returns, or raises, in a thread of ``pool`` (None: asyncio's own).

    Args:
        node: who waits.

    Raises:
        CancelledError: ``node`` is being taken down.
    """
    done = asyncio.get_running_loop().run_in_executor(pool, job, *args)
    await asyncio.wait([done])
    if not node.display:
        done.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody else looks at it
        raise asyncio.CancelledError
    return done.result()
