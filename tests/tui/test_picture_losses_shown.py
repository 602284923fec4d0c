"""What a run says of its pictures: folded into the view, shown in the table, asked for by a key."""

from __future__ import annotations

from pathlib import Path

from pocket import pocket_config
from test_view import STARTED, folded
from test_workbench_editing import LiveRun, dataset, showing
from watching import text_of, until

from engine.dataset.query import query_of
from engine.events import Log, PictureLosses, RunStarted
from tui.catalog_rows import Row, matching
from tui.glyphs import UNICODE
from tui.report import report
from tui.session import NEXT_START
from tui.view_pictures import worst
from tui.widgets.dataset_columns import Limits, cell_of, columns_for, extra_of
from tui.workplace import Workplace


def fixed(step: int, names: tuple[str, ...], shares: tuple[float, ...], base: float = 0.0) -> PictureLosses:
    """A pass whose figures are ``shares``."""
    count = len(names)
    return PictureLosses(step, 1, "fixed", names, shares, (1.0,) * count, (base,) * count)


def test_parts_of_a_pass_belong_together_and_a_later_pass_takes_their_place() -> None:
    first = [fixed(4, ("/d/a.png",), (0.5,)), fixed(4, ("/d/b.png", "/d/c.png"), (1.5, 0.7))]
    view = folded(STARTED, PictureLosses(3, 1, "steps", ("/d/a.png",), (1.2,), counts=(1,)), *first)
    assert view.pictures.shown == {"/d/a.png": 0.5, "/d/b.png": 1.5, "/d/c.png": 0.7}
    assert worst(view.pictures.shown, 2) == [("b.png", 1.5), ("c.png", 0.7)]
    assert "Captions that fit least: b.png 1.50, c.png 0.70, a.png 0.50" in report(view)
    again = folded(STARTED, *first, fixed(4, ("/d/a.png",), (0.4,)))
    assert again.pictures.shown == {"/d/a.png": 0.4}
    later = folded(STARTED, *first, fixed(9, ("/d/a.png",), (0.3,)))
    assert later.pictures.shown == {"/d/a.png": 0.3}


def test_what_came_after_the_step_gone_back_to_is_forgotten() -> None:
    steps = PictureLosses(3, 1, "steps", ("/d/a.png",), (1.2,), counts=(1,))
    back = RunStarted("glorb", "/runs/glorb", "flux1", "dev", epochs=4, steps=40, images=10, resumed_step=6)
    view = folded(STARTED, steps, fixed(9, ("/d/a.png",), (0.3,)), back)
    assert view.pictures.shown == {"/d/a.png": 1.2}
    assert folded(STARTED, steps, STARTED).pictures.shown == {}


def test_figures_of_any_file_are_taken_as_far_as_they_go() -> None:
    assert fixed(1, ("a",), (0.5,), base=0.9).figures == {"a": 0.9}
    alone = PictureLosses(1, 1, "fixed", ("a", "b"), (1.0, 3.0), (0.0, 0.0), (0.0, 0.0))
    assert alone.figures == {"a": 0.5, "b": 1.5}
    assert PictureLosses(1, 1, "fixed", ("a", "b"), (0.0,), (0.0,), (0.0,)).figures == {"a": 0.0}
    assert PictureLosses(1, 1, "?", ("a",), ()).figures == {}


def test_the_column_comes_with_the_figures_and_sorts_by_them() -> None:
    rows = [Row(Path(name), name, Path("a.txt"), "x", picture_mark=(1, 1)) for name in ("a", "b", "c")]
    rows[0].loss, rows[1].loss = 0.5, 1.257
    assert matching(rows, query_of(""), "loss", descending=True) == [rows[1], rows[0], rows[2]]
    assert "loss" not in [column.key for column in columns_for(78)]
    column = next(column for column in columns_for(78, extra=extra_of("loss")) if column.key == "loss")
    cells = [cell_of(row, column, Limits(), 0, UNICODE) for row in rows]
    assert cells == [("  0.50", "dim"), ("  1.26", "warning"), ("      ", "dim")]
    state = columns_for(78, longest=6)[-1]
    assert cell_of(rows[0], state, Limits(), NEXT_START, UNICODE)[0].strip().endswith("next start")


async def test_a_key_asks_for_the_figures_and_the_worst_come_first(tmp_path: Path) -> None:
    run = LiveRun(pocket_config(tmp_path))
    place = Workplace.around(run, tmp_path)
    async with showing(place, size=(80, 24)) as (pilot, app):
        await until(pilot, lambda: place.view.step > 3)
        await pilot.press("1", "L")
        await until(pilot, lambda: "Measuring each picture" in text_of(app))
        names = [str(row.path) for row in place.catalog.rows]
        run.events.append(fixed(4, tuple(names), (0.7, 0.8, 1.34, 0.9, 0.6)))
        run.events.append(Log("info", "measured"))
        await until(pilot, lambda: dataset(app).listing.rows[0] is place.catalog.rows[2])
        await until(pilot, lambda: "1.34" in text_of(app) and "loss" in text_of(app))
        assert place.session.sort == "loss" and place.session.descending
        # What a live run is made of counts from its next start: the row says so.
        place.catalog.note(place.catalog.rows[2], repeats=3)
        await until(pilot, lambda: place.session.edited == {names[2]: NEXT_START})
        await until(pilot, lambda: "next" in text_of(app))
    place.close()
