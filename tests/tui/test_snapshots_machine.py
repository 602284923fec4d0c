"""Pictures of captioning by machine: the form, and the review of what came of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from still import IDS, SMALL, WIDE, Album, album, showing, small_config, still_world, until
from textual.widgets import Input
from tiny_pictures import add, dataset

from engine.captioners.drafts import Draft, save_draft, size_of
from tui.session import SessionState
from tui.widgets.preview import Preview
from tui.workplace import Workplace

__all__ = ["album", "still_world"]


@pytest.mark.parametrize("size", [WIDE, SMALL], **IDS)
async def test_form_and_review(album: Album, size: tuple[int, int]) -> None:
    add(Path("data"), "a.png", "A cat sits on a mat.", (64, 48))
    add(Path("data"), "b.png", "A cat.", (64, 48))
    for name, text in (("a.png", "A black cat sleeps on a mat, in warm light."), ("b.png", "A dog.")):
        path = Path("data", name).absolute()
        save_draft(path, Draft(text, "joycaption (LLaVA)", "Describe the picture.", 1.0, size_of(path)))
    Path("wd").mkdir()
    Path("wd", "model.onnx").write_bytes(b"graph")
    Path("wd", "selected_tags.csv").write_text("name,category\na,0\n")
    place = Workplace(Path.cwd(), session=SessionState())
    # With the model its tokenizers are at hand: a screen holds still once tokens are counted.
    place.catalog.open(dataset(Path("data").absolute()), small_config().model)
    app = showing(place)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.workbench is not None and app.workbench.feed is not None)
        bench = app.workbench
        assert bench is not None
        await until(pilot, lambda: len(bench._dataset.listing.rows) == 2 and not place.catalog.stage)
        await pilot.press("A")
        app.screen.query_one("#field-model", Input).value = "wd"
        await until(pilot, lambda: "-good" in app.screen.query_one("#row-model .note").classes)
        await album.take(pilot, "form")
        await pilot.press("escape", "V")
        preview = app.screen.query_one("#review-picture", Preview)
        await until(pilot, lambda: preview._drawn is not None)
        await pilot.press("tab", "space")
        await album.take(pilot, "review")
        await pilot.press("A")
        await album.take(pilot, "many")
