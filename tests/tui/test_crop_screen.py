"""Cropping by keys and mouse, exclusion and repeats in the table: what is shown, and what is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pocket import pocket_config
from still import SMALL, WIDE, Album, album, app_at, press, still_world
from test_dataset_pane import pane
from textual.pilot import Pilot
from tiny_pictures import add, dataset, opened, wait_for
from watching import text_of, until

from engine.config_file import save_config
from engine.dataset.decoder import Decoder
from engine.dataset.sidecar import load_sidecar
from tui.app import KilnApp
from tui.catalog import Catalog
from tui.catalog_rows import Row
from tui.plan import pictures_in_words, steps_in_words
from tui.screens.crop import CropScreen
from tui.screens.large_picture import LargePictureScreen
from tui.session import SessionState
from tui.terminal.traits import Traits
from tui.thumbnails import Thumbnails
from tui.widgets.caption import CaptionPane
from tui.widgets.crop_preview import CropPreview
from tui.widgets.overlays import MaskShown
from tui.widgets.picture_info import crop_of, facts_of, mask_shown, placement_of
from tui.widgets.preview import Wanted, draw
from tui.workplace import Workplace

__all__ = ["album", "still_world"]


@asynccontextmanager
async def cropping(
    tmp_path: Path, size: tuple[int, int], **settings: Any
) -> AsyncIterator[tuple[Pilot[Any], KilnApp, Workplace]]:
    """The workbench with five pictures of 64 x 64, the cursor on the first."""
    save_config(pocket_config(tmp_path, **settings), tmp_path / "test.toml")
    place = Workplace(tmp_path, session=SessionState())
    app = KilnApp(place, Traits())
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.workbench is not None and app.workbench.feed is not None)
        await until(pilot, lambda: place.catalog.state == "ready" and place.catalog.rows[-1].width)
        await until(pilot, lambda: "00.png" in text_of(app))
        yield pilot, app, place
    place.close()
    assert app.crash == ""


def shown(app: KilnApp) -> CropScreen:
    assert isinstance(app.screen, CropScreen)
    return app.screen


async def test_a_crop_is_made_by_keys_kept_and_taken_away(tmp_path: Path) -> None:
    async with cropping(tmp_path, SMALL) as (pilot, app, place):
        first, second = place.catalog.rows[:2]
        await pilot.press("1", "c")
        await until(pilot, lambda: isinstance(app.screen, CropScreen) and "all of 64x64" in text_of(app))
        await pilot.press("H", *"HHHHHHH", "right")  # a narrower box, then to the right
        assert shown(app).box == (2, 0, 48, 64) and "(changed)" in text_of(app)
        assert "48x64 at 2,0 of 64x64" in text_of(app) and "bucket 48x80" in text_of(app)
        await pilot.press("f", "right", "f", "n")
        await until(pilot, lambda: shown(app).row is second)
        assert first.crop == (3, 0, 48, 64) and first.bucket == (48, 80)
        await pilot.press("a", "minus", "escape")  # left: this one stays whole
        await until(pilot, lambda: not isinstance(app.screen, CropScreen))
        assert second.crop is None and place.session.cursor == str(second.path)
        wait_for(lambda: load_sidecar(tmp_path / "data").of("00.png").crop == (3, 0, 48, 64))
        await until(pilot, lambda: "crop" in text_of(app))
        await pilot.press("k", "c")
        await until(pilot, lambda: isinstance(app.screen, CropScreen))
        await pilot.press("0", "enter")
        await until(pilot, lambda: not isinstance(app.screen, CropScreen))
        assert first.crop is None and first.bucket == (64, 64)
        await pilot.press("v")
        await until(pilot, lambda: "This picture has no mask" in text_of(app))
        wait_for(lambda: load_sidecar(tmp_path / "data").of("00.png").crop is None)


@pytest.mark.parametrize(("key", "kind"), [("c", CropScreen), ("p", LargePictureScreen)], ids=["crop", "large"])
async def test_masks_are_shown_over_a_picture_that_is_opened_as_over_the_preview(
    tmp_path: Path, key: str, kind: type[CropScreen | LargePictureScreen]
) -> None:
    masks = {"masks": {"source": "folder"}}
    async with cropping(tmp_path, WIDE, dataset=masks) as (pilot, app, _):
        (tmp_path / "data" / "masks").mkdir()
        Image.new("L", (64, 64)).save(tmp_path / "data" / "masks" / "00.png")
        await pilot.press("1", "v")
        await until(pilot, lambda: "Red counts less" in text_of(app))
        await pilot.press(key)
        await until(pilot, lambda: isinstance(app.screen, kind) and "Red counts less" in text_of(app))
        preview = app.screen.query_one(CropPreview)
        await until(pilot, lambda: preview._drawn is not None)
        assert preview._wanted is not None and preview._wanted.mask is not None
        assert preview._wanted.mask.path == tmp_path / "data" / "masks" / "00.png"
        await pilot.press("n")
        await until(pilot, lambda: "This picture has no mask" in text_of(app))
        await pilot.press("v")
        await until(pilot, lambda: "mask" not in text_of(app).replace("v Mask", ""))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.workbench)
        assert app.workbench is not None and not app.workbench.query_one(CaptionPane).show_mask


async def test_a_crop_is_drawn_and_moved_by_the_mouse(tmp_path: Path) -> None:
    async with cropping(tmp_path, WIDE) as (pilot, app, _):
        await pilot.press("1", "c")
        await until(pilot, lambda: isinstance(app.screen, CropScreen))
        preview = app.screen.query_one(CropPreview)
        await until(pilot, lambda: preview._drawn is not None)
        left, above = (preview.size.width - 80) // 2, (preview.size.height - 40) // 2
        columns, rows = preview._drawn.cells.columns, preview._drawn.cells.rows  # type: ignore[union-attr]
        left, above = (preview.size.width - columns) // 2, (preview.size.height - rows) // 2

        async def drag(start: tuple[float, float], end: tuple[float, float]) -> None:
            (x, y), (to_x, to_y) = [(left + int(a * columns), above + int(b * rows)) for a, b in (start, end)]
            await pilot.mouse_down(preview, offset=(x, y))
            await pilot.hover(preview, offset=(to_x, to_y))
            await pilot.mouse_up(preview, offset=(to_x, to_y))

        await drag((0.25, 0.25), (0.75, 0.75))
        box = shown(app).box
        assert box is not None and all(abs(a - b) <= 2 for a, b in zip(box, (16, 16, 32, 32), strict=True))
        await drag((0.5, 0.5), (0.25, 0.5))
        moved = shown(app).box
        assert moved is not None and moved[2:] == box[2:] and abs(box[0] - moved[0] - 16) <= 2


async def test_exclusion_and_repeats_by_keys(tmp_path: Path) -> None:
    for name in "abc":
        add(tmp_path, f"{name}.png")
    async with pane(tmp_path) as (app, pilot):
        a, b, c = app.catalog.rows
        await pilot.press("X")
        assert a.excluded and app.catalog.note(a) and "excluded" in text_of(app)
        await pilot.press("X", "right_square_bracket", "right_square_bracket")
        assert (a.excluded, a.own_repeats, a.seen) == (False, 3, 3) and app.said[-1].startswith("a.png: 3 times")
        await pilot.press(*["left_square_bracket"] * 3)
        assert a.own_repeats is None and a.seen == 1
        await pilot.press("j", "m", "m", "X")  # b and c are marked: both go out, and both come back
        assert [row.excluded for row in (a, b, c)] == [False, True, True]
        wait_for(lambda: load_sidecar(tmp_path).of("c.png").exclude is True)
        await pilot.press("X")
        assert not any(row.excluded for row in (a, b, c))
    assert load_sidecar(tmp_path).pictures == {}


def test_a_crop_chooses_the_bucket_and_one_that_does_not_fit_is_told(tmp_path: Path) -> None:
    catalog = Catalog()
    for name in "ab":
        add(tmp_path, f"{name}.png", size=(128, 64))
    opened(catalog, tmp_path, resolution=64, buckets={"min_side": 32, "step": 16})
    a, b = catalog.rows
    whole = a.bucket
    catalog.note(a, crop=(0, 0, 64, 64))
    assert whole != a.bucket == (64, 64)
    catalog.note(b, crop=(100, 0, 64, 64))
    assert b.bucket == whole and (b.code, b.severity) == ("crop", "warning")
    catalog.note(b, crop=None, exclude=True)
    assert not b.severity and pictures_in_words(catalog.rows) == "1, 1 excluded"
    assert steps_in_words(pocket_config(tmp_path / "run"), catalog.rows) == "3 steps"
    wait_for(lambda: load_sidecar(tmp_path).of("b.png").exclude is True)
    catalog.refresh()
    wait_for(lambda: catalog.state == "ready")
    assert (a.crop, a.bucket, b.excluded) == ((0, 0, 64, 64), (64, 64), True)
    catalog.close()


def test_facts_and_frame_of_a_cropped_picture(tmp_path: Path) -> None:
    picture = add(tmp_path, "a.png")
    row = Row(picture, "a.png", tmp_path / "a.txt", width=200, height=100, crop=(100, 0, 100, 100), excluded=True)
    settings = dataset(tmp_path, resolution=512)
    placed = placement_of(row, settings)
    assert placed is not None and (placed.bucket_w, placed.bucket_h) == (512, 512)
    assert crop_of(row, placed) == (0.5, 0.0, 1.0, 1.0)
    parts = facts_of(row, placed, "->").parts
    assert parts[0] == "200x100 -> 100x100 at 100,0 -> bucket 512x512"
    assert "enlarged 5.1 times" in parts and "excluded" in parts
    assert mask_shown(row, settings) is None
    mask = mask_shown(row, dataset(tmp_path, masks={"source": "alpha"}))
    assert mask is not None and (mask.path, mask.alpha, mask.picture) == (picture, True, (200, 100))


def test_a_mask_is_drawn_red_over_its_picture(tmp_path: Path) -> None:
    picture = add(tmp_path, "a.png", size=(64, 64))
    mask = Image.new("L", (32, 32), 255)
    mask.paste(0, (0, 0, 16, 32))
    mask.save(tmp_path / "mask.png")
    with Decoder() as decoder:
        thumbnails = Thumbnails(decoder, tmp_path / "cache")
        for path, red in ((tmp_path / "mask.png", True), (tmp_path / "gone.png", False)):
            wanted = Wanted(picture, 1, None, 8, 4, "halves", mask=MaskShown(path, False, (64, 64)))
            line = draw(thumbnails, wanted).cells.lines[1]
            light, plain = line[0][1] >> 16, line[-1][1] >> 16
            assert plain < 80 and (light > 120) == red
        thumbnails.close()


@pytest.mark.parametrize("size", [WIDE, SMALL], ids=["wide", "small"])
async def test_the_screen(album: Album, size: tuple[int, int]) -> None:
    app = app_at("idle")
    async with app.run_test(size=size) as pilot:
        await press(pilot, app, "1 c")
        await until(pilot, lambda: isinstance(app.screen, CropScreen))
        await press(pilot, app, "H H H H H H K K K K right right down")
        preview = app.screen.query_one(CropPreview)
        await until(pilot, lambda: preview._drawn is not None and not preview._loading)
        await album.take(pilot, "crop")
