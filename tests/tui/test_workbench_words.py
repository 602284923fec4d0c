"""What the workbench says where there is little room, and where there is nothing yet."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_run import FakeRun
from watching import text_of, until

from engine.commands import StopNow
from tui.app import KilnApp
from tui.session import SessionState
from tui.terminal.traits import Traits
from tui.widgets.gauges import Gauges
from tui.widgets.stages import Result
from tui.workplace import Workplace


@pytest.mark.parametrize("size", [(100, 30), (80, 24)], ids=["100x30", "80x24"])
async def test_a_finished_run_keeps_a_line_on_how_to_read_its_curve(tmp_path: Path, size: tuple[int, int]) -> None:
    place = Workplace.around(FakeRun(tmp_path, epochs=2, steps_per_epoch=20), tmp_path)
    app = KilnApp(place, Traits())
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: place.view.done is not None and "Done:" in text_of(app))
        line = next(line for line in text_of(app).splitlines() if "Done:" in line)
        assert "not always best." in line
        assert "Finished: epoch 2" in text_of(app)
    place.close()


async def test_an_empty_folder_offers_first_what_there_is_to_do(tmp_path: Path) -> None:
    place = Workplace(tmp_path, session=SessionState())
    app = KilnApp(place, Traits())
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "Nothing to train yet" in text_of(app))
        await until(pilot, lambda: text_of(app).splitlines()[-1].startswith(" w Wizard  ^n New run  r Runs"))
        lines = text_of(app).splitlines()
        assert "Smooth" not in lines[-1]
        hint = next(number for number, line in enumerate(lines) if "Choose a picture in the dataset" in line)
        assert 15 < hint < 30
        assert not app.screen.query_one(Gauges).region
    place.close()


async def test_the_memory_plot_names_its_curves(tmp_path: Path) -> None:
    place = Workplace.around(FakeRun(tmp_path, epochs=1, steps_per_epoch=100_000), tmp_path)
    app = KilnApp(place, Traits())
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: place.view.step > 5)
        await pilot.press("z")
        await until(pilot, lambda: "upper: machine  lower: this process" in text_of(app))
        assert place.run is not None
        place.run.submit(StopNow())
    place.close()


@pytest.mark.parametrize("size", [(160, 45), (80, 24)], ids=["160x45", "80x24"])
async def test_a_run_that_was_cut_off_says_whole_what_to_do(tmp_path: Path, size: tuple[int, int]) -> None:
    run = FakeRun(tmp_path, epochs=1, steps_per_epoch=20)
    run._prepare = lambda: run._enter("interrupted")  # type: ignore[method-assign]
    run._train = run._finish = lambda *_: None  # type: ignore[method-assign]
    place = Workplace.around(run, tmp_path)
    app = KilnApp(place, Traits())
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "Interrupted at step" in text_of(app))
        pane = app.screen.query_one(Result)
        shown = " ".join(" ".join(strip.text for strip in pane.render_lines(pane.size.region)).split())
        assert shown == "! Interrupted at step 0: enter goes on from what was saved last"
    place.close()
