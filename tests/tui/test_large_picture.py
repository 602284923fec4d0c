"""One picture large: which part is seen, and keys and mouse on the whole screen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from still import SMALL, Album, album, app_at, press, still_world
from textual.widgets import Static
from watching import until

from tui.picture_window import ZOOMS, Look, moved, part_of, zoomed
from tui.screens.large_picture import LargePictureScreen
from tui.terminal.traits import Traits
from tui.widgets.large_picture import LargePicture
from tui.widgets.overlays import windowed

__all__ = ["album", "still_world"]

SIDES = st.tuples(st.integers(1, 8000), st.integers(1, 8000))
STEPS = st.lists(st.tuples(st.integers(-1, 1), st.floats(-2, 2), st.floats(0, 1)), max_size=12)


def test_the_whole_picture_is_seen_until_it_is_zoomed() -> None:
    assert part_of(Look(), (1600, 900), (160, 80)) == (0, 0, 1, 1)
    # Twice as near: half across; down there was room left over.
    assert part_of(Look(2.0), (1600, 900), (160, 90)) == (0.25, 0.25, 0.75, 0.75)
    assert part_of(Look(2.0), (1600, 400), (160, 80)) == (0.25, 0, 0.75, 1)


def test_the_point_under_the_mouse_stays_there() -> None:
    picture, room = (1000, 1000), (100, 100)
    look = zoomed(Look(2.0), picture, room, 2, (0.25, 0.75))
    left, top, right, bottom = part_of(look, picture, room)
    assert look.zoom == 4.0
    assert (left + 0.25 * (right - left), top + 0.75 * (bottom - top)) == pytest.approx((0.375, 0.625))


@given(SIDES, SIDES, STEPS)
def test_what_is_seen_is_in_the_picture_and_undone_by_zooming_out(
    picture: tuple[int, int], room: tuple[int, int], steps: list[tuple[int, float, float]]
) -> None:
    look = Look()
    for by, pan, at in steps:
        look = moved(zoomed(look, picture, room, by, (at, 1 - at)), picture, room, pan, -pan)
        left, top, right, bottom = part_of(look, picture, room)
        assert -1e-9 <= left < right <= 1 + 1e-9 and -1e-9 <= top < bottom <= 1 + 1e-9
        assert 0.0 <= look.x <= 1.0 and 0.0 <= look.y <= 1.0 and look.zoom in ZOOMS
    look = zoomed(look, picture, room, -len(ZOOMS))
    assert part_of(look, picture, room) == pytest.approx((0, 0, 1, 1))


@given(SIDES, st.floats(0, 1), st.floats(0, 1))
def test_a_window_is_never_empty(side: tuple[int, int], first: float, second: float) -> None:
    import numpy as np

    pixels = np.zeros((side[1] % 50 + 1, side[0] % 50 + 1, 3), np.uint8)
    low, high = sorted((first, second))
    assert windowed(pixels, (low, low, high, high)).size > 0


async def test_keys_and_mouse_zoom_move_mark_and_lead_back(still_world: None) -> None:
    app = app_at("idle")
    async with app.run_test(size=SMALL) as pilot:
        await press(pilot, app, "1 j")
        listing = app.workbench.query_one("#dataset").listing  # type: ignore[union-attr, attr-defined]
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, LargePictureScreen))
        screen = app.screen
        assert isinstance(screen, LargePictureScreen)
        picture = screen.query_one(LargePicture)
        await until(pilot, lambda: picture._drawn is not None and picture._drawn.cells.columns > 20)
        await pilot.press("plus", "plus", "right", "down")
        assert screen.look.zoom == 2.0 and screen.look.x > 0.5 and screen.look.y > 0.5
        assert "2 ×" in str(screen.query_one("#head", Static).content)
        await until(pilot, lambda: picture._drawn is not None and picture._wanted in picture._kept)
        x = screen.look.x
        await pilot.mouse_down(picture, offset=(30, 8))
        await pilot.hover(picture, offset=(50, 8))
        await pilot.mouse_up(picture, offset=(50, 8))
        assert screen.look.x < x, "the picture went along to the right"
        await pilot.press("0", "m", "n")
        assert screen.look == Look() and screen.row is listing.rows[2]
        await pilot.press("m", "p", "p", "p", "n", "n")
        assert [row.name for row in listing.scope()[0]] == [row.name for row in listing.rows[1:3]]
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.workbench)
        assert listing.cursor == 2


async def test_where_pictures_are_off_it_says_so(still_world: None) -> None:
    app = app_at("idle")
    app.workplace.settings = app.workplace.settings.model_copy(update={"images": "off"})
    async with app.run_test(size=SMALL) as pilot:
        await pilot.press("1")
        await until(pilot, lambda: app.workbench is not None and app.workbench.feed is not None)
        await press(pilot, app, "1 p")
        assert app.screen is app.workbench


async def test_large(album: Album) -> None:
    app = app_at("idle")
    app.traits = Traits(utf8=True)
    async with app.run_test(size=SMALL) as pilot:
        await press(pilot, app, "1 p plus")
        picture = app.screen.query_one(LargePicture)
        await until(
            pilot, lambda: picture._wanted is not None and picture._kept.get(picture._wanted) is picture._drawn
        )
        await album.take(pilot, "large")
