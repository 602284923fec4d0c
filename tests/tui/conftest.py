"""A screen under test is at rest when nothing waits in it, however busy the machine is.

Textual's pilot takes an application for idle when its process uses little of the processor. On a busy machine that
holds for one that gets no turn as well: keys are then taken for worked off before anything looked at them. Here the
queues are asked too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.message_pump import MessagePump
from textual.pilot import Pilot

from tui.key_order import KeysInOrder
from tui.workplace import Workplace

ROUNDS = 3
"""How often in a row nothing may wait: what is being worked off is in no queue."""

ROOT = Path(__file__).resolve().parents[2]

PATIENCE_S = 5.0
"""A screen that never rests is tested as it is."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A screen that a stalled machine kept waiting is looked at once more; the report counts it as rerun."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=1))


def restless(app: App[Any]) -> bool:
    """Whether a message waits anywhere, or what is to follow one."""
    if isinstance(app, KeysInOrder) and (app._held or app._busy_since):
        return True
    nodes: list[MessagePump] = [app]
    for screen in app._screen_stack:
        if screen._callbacks:
            return True
        nodes += screen.walk_children(with_self=True)
    return any(node.message_queue_size or node._next_callbacks for node in nodes)


async def rest(app: App[Any]) -> None:
    """Wait until ``app`` is at rest."""
    end, calm = time.monotonic() + PATIENCE_S, 0
    while calm < ROUNDS and app._running and time.monotonic() < end:
        await asyncio.sleep(0.001)
        calm = 0 if restless(app) else calm + 1


@pytest.fixture(autouse=True)
def _patient_pilot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and pauses of the pilot end when the application rests."""
    press, pause = App._press_keys, Pilot.pause

    async def press_patiently(app: App[Any], keys: Iterable[str]) -> None:
        for key in keys:
            await press(app, [key])
            await rest(app)

    async def pause_patiently(pilot: Pilot[Any], delay: float | None = None) -> None:
        await pause(pilot, delay)
        await rest(pilot.app)
        pilot.app.screen._on_timer_update()

    monkeypatch.setattr(App, "_press_keys", press_patiently)
    monkeypatch.setattr(Pilot, "pause", pause_patiently)


@pytest.fixture(autouse=True)
def _closed_workplaces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of a test's work folder lives on: neither its decoder's process nor its threads slow the next one.

    A work folder that tests share would hand the session of one to the next.
    """
    places: list[Workplace] = []
    begin = Workplace.__init__

    def noted(place: Workplace, *arguments: Any, **options: Any) -> None:
        begin(place, *arguments, **options)
        places.append(place)

    monkeypatch.setattr(Workplace, "__init__", noted)
    yield
    for place in places:
        place.close()
        assert place.folder != ROOT, "a test's work folder is one of its own"
