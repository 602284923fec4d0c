"""Pictures of every main screen in every size and theme, without colours, and in plain ASCII."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from still import IDS, MEDIUM, SIZES, Album, album, app_at, press, still_world
from textual.pilot import Pilot

from tui.app import KilnApp
from tui.themes import THEMES

__all__ = ["album", "still_world"]

WAYS = {
    "workbench": "1 3 1",
    "help": "question_mark",
    "setup": "escape 3 ctrl+n",
    "runs": "escape escape 3 r",
    "compare": "home space end c",
}
"""The keys that lead from each main screen to the next."""


SIZED = [pytest.param(size, marks=pytest.mark.slow if size == MEDIUM else ()) for size in SIZES]
"""The size between the others is looked at in the slow suite."""


async def screens(pilot: Pilot[Any], app: KilnApp) -> AsyncIterator[str]:
    """Go from screen to screen."""
    for name, keys in WAYS.items():
        await press(pilot, app, keys)
        yield name


@pytest.mark.parametrize("size", SIZED, **IDS)
async def test_themes(album: Album, size: tuple[int, int]) -> None:
    app = app_at("training")
    async with app.run_test(size=size) as pilot:
        async for name in screens(pilot, app):
            for theme in THEMES:
                app.theme = theme.name
                await pilot.pause()
                await album.take(pilot, f"{name}-{theme.name}")


@pytest.mark.parametrize("size", SIZED, **IDS)
async def test_without_colours(album: Album, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = app_at("training")
    async with app.run_test(size=size) as pilot:
        async for name in screens(pilot, app):
            await album.take(pilot, name)


@pytest.mark.parametrize("size", SIZED, **IDS)
async def test_ascii(album: Album, size: tuple[int, int]) -> None:
    app = app_at("training", utf8=False)
    async with app.run_test(size=size) as pilot:
        async for name in screens(pilot, app):
            await album.take(pilot, name)
