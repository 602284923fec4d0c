"""The training pane and the log show what a probe measured beside its forecast, and what the watch found."""

from __future__ import annotations

import pytest
from still import IDS, SMALL, WIDE, StillRun, app_at, press, settled, still_world, until  # noqa: F401
from watching import text_of

from engine.events import Foreseen, MemoryHeld, MemorySampled, Probed, Slowed

PROBED = Probed(20.1, 18.9, 15.2, 1.49, 4608, 1024, 1024, 1, 24.0, 0.4)
FORESEEN = Foreseen(19.8, 1.38, "3 measurements on this machine")
SLOWED = Slowed(
    120, 1.8, "spill",
    "Steps take 1.8 times as long as they did, 2.6 s since about step 120: the card is full (23.9 of 24.0 GiB), so "
    "the driver keeps a part of its memory on the host. memory.blocks_to_swap = 5 would free about 1 GiB",
    ("memory.blocks_to_swap = 5",),
)  # fmt: skip


@pytest.mark.parametrize("size", [WIDE, SMALL], **IDS)
async def test_probe_forecast_and_slowness_can_be_read(still_world: None, size: tuple[int, int]) -> None:  # noqa: F811
    app = app_at("training")
    run = app.workplace.run
    assert isinstance(run, StillRun)
    for event in (
        PROBED, FORESEEN, SLOWED, MemorySampled(21.0, 64.0, 3.2, 23.9, 24.0, 20.3, 96.0, 71.0, 402.0),
        MemoryHeld(12.0, 0.7, 1.6, 0.8, 0.3, 20.3),
    ):  # fmt: skip
        run.events.append(event)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: settled(app))
        await press(pilot, app, "3")
        shown = " ".join(text_of(app).split())
        assert "Slower: steps take 1.8 times" in shown
        await press(pilot, app, "z")
        assert "probe 20.1 GiB, forecast 19.8" in " ".join(text_of(app).split()) or size == SMALL
        await press(pilot, app, "z 5 z")
        log = " ".join(text_of(app).replace("┃", " ").split())
        assert (
            "probe of 1024x1024: peak 20.1 of 24.0 GB, forecast 19.8 (+1.5%); 1.49 s a step, forecast 1.38 s" in log
        )
        assert "memory.blocks_to_swap = 5 would free about 1 GiB" in log
        await pilot.press("question_mark", "2")
        await pilot.pause()
        assert "It has become slow" in text_of(app)
