"""Pictures of the form that changes many captions, and of words and tags."""

from __future__ import annotations

import pytest
from still import IDS, SMALL, WIDE, Album, album, app_at, press, still_world, until

from tui.screens.replace import ReplaceScreen
from tui.screens.words import WordsScreen

__all__ = ["album", "still_world"]


@pytest.mark.parametrize("size", [WIDE, SMALL], **IDS)
async def test_many_captions(album: Album, size: tuple[int, int]) -> None:
    app = app_at("stopped", utf8=size == WIDE)
    async with app.run_test(size=size) as pilot:
        await press(pilot, app, "1 f")
        screen = app.screen
        assert isinstance(screen, ReplaceScreen)
        await pilot.press(*"zorple", "down", *"glorb", "enter")
        await until(pilot, lambda: not screen.looking and len(screen.changes.items) > 3)
        await press(pilot, app, "down space")
        await album.take(pilot, "replace")
        await press(pilot, app, "escape t")
        await until(pilot, lambda: isinstance(app.screen, WordsScreen) and not app.screen.looking)
        await album.take(pilot, "words")
