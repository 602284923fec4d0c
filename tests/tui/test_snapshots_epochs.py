"""Pictures of the epochs screen and of what it opens."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_epochs import make_run
from still import SMALL, WIDE, Album, album, press, showing, still_world, until

from engine.training.advisor import Advice
from tui.judged import Judged, write_judged
from tui.screens.epochs import EpochsScreen
from tui.workplace import Workplace

__all__ = ["album", "still_world"]

JUDGED = (
    Judged(chosen=6)
    .with_opinion(6, stars=5, note="hair is right, hands too", recognisable="yes", wins=7, shown=8)
    .with_opinion(8, stars=3, wins=2, shown=8)
)

ADVICE = Advice(
    "over", 4, 7, 5, True, "sure", ("Held-out loss fell by 15 % to epoch 6 and has given all of that back.",),
    ("About 5 epochs are enough at this rate.",),
)  # fmt: skip
"""Fixed, so that the screen's pictures do not change with the advisor's rules."""


@pytest.mark.parametrize(
    ("size", "utf8"), [(WIDE, True), (SMALL, True), (SMALL, False)], ids=["160x45", "80x24", "ascii"]
)
async def test_epochs(album: Album, size: tuple[int, int], utf8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.epochs_shown.advice_of", lambda view, stop: ADVICE)
    root = make_run(Path.cwd(), epochs=16, every=2, name="glorb")
    write_judged(root, JUDGED)
    app = showing(Workplace(Path.cwd()), utf8=utf8)
    async with app.run_test(size=size) as pilot:
        await press(pilot, app, "1")
        app.push_screen(EpochsScreen(app.workplace, root))
        await until(pilot, lambda: isinstance(app.screen, EpochsScreen))
        await album.take(pilot, "curves")
        if size == SMALL:
            await press(pilot, app, "c tab")
            await album.take(pilot, "table")
            await press(pilot, app, "tab")
            await album.take(pilot, "pictures")
        if utf8 and size == SMALL:
            await press(pilot, app, "g right right enter")
            await album.take(pilot, "two")
            await press(pilot, app, "escape v")
            await album.take(pilot, "verdict")
