"""Pictures of every pane and moment at the sizes where it looks different; ``--snapshot-update`` renews them."""

from __future__ import annotations

import pytest
from still import IDS, MEDIUM, SMALL, TINY, WIDE, Album, album, app_at, press, still_world

__all__ = ["album", "still_world"]

PANES = {1: "dataset", 2: "caption", 3: "training", 4: "samples", 5: "log"}


@pytest.mark.parametrize("size", [MEDIUM, SMALL], **IDS)
async def test_panes(album: Album, size: tuple[int, int]) -> None:
    app = app_at("training")
    async with app.run_test(size=size) as pilot:
        for number, name in PANES.items():
            await press(pilot, app, str(number))
            await album.take(pilot, name)
            if name == "caption":
                await press(pilot, app, "escape")


@pytest.mark.parametrize("size", [WIDE, SMALL], **IDS)
async def test_zoomed(album: Album, size: tuple[int, int]) -> None:
    app = app_at("training")
    async with app.run_test(size=size) as pilot:
        await press(pilot, app, "1 3 z")
        await album.take(pilot, "training")
        await press(pilot, app, "4")
        await album.take(pilot, "samples")


@pytest.mark.parametrize("size", [WIDE, SMALL], **IDS)
@pytest.mark.parametrize("moment", ["empty", "idle", "caching", "paused", "stopped", "finished", "failed"])
async def test_moments(album: Album, moment: str, size: tuple[int, int]) -> None:
    app = app_at(moment)
    async with app.run_test(size=size) as pilot:
        await press(pilot, app, "3")
        await album.take(pilot, "training")
        if moment == "empty":
            await press(pilot, app, "1")
            await album.take(pilot, "dataset")


async def test_too_small_for_panes(album: Album) -> None:
    app = app_at("training")
    async with app.run_test(size=TINY) as pilot:
        await album.take(pilot, "line")


async def test_what_to_describe(album: Album) -> None:
    app = app_at("training")
    async with app.run_test(size=SMALL) as pilot:
        await press(pilot, app, "2 f3")
        await album.take(pilot, "reminder")


async def test_filtered_and_sorted(album: Album) -> None:
    app = app_at("training")
    async with app.run_test(size=SMALL) as pilot:
        await press(pilot, app, "1 plus j plus plus slash 0 0")
        await album.take(pilot, "filter")
        await press(pilot, app, "space left_parenthesis")
        await album.take(pilot, "filter-fault")
        await press(pilot, app, "f1")
        await album.take(pilot, "filter-help")
        await press(pilot, app, "escape")
        await press(pilot, app, "escape escape o o o o")
        await album.take(pilot, "sorted")
