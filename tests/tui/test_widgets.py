"""The rasters and small parts: dots lie where they should, spikes survive, work does not grow with points."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_run import write_picture

from engine.events import SampleSaved
from tui.signals import StopSignals, exit_code_of
from tui.units import duration, number, short_time, size
from tui.widgets.braille import BrailleCanvas, codes, column_spans, robust_limits
from tui.widgets.cells import wrap
from tui.widgets.picture import fit, load_picture, split_quadrants
from tui.widgets.plot import Mark, round_top, thinned
from tui.widgets.samples import film_of
from tui.widgets.stages import DETAIL, shared


def calls_of(work: Callable[[], object]) -> int:
    """Python and C calls that ``work`` makes."""
    count = 0

    def tally(frame: object, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(tally)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def draw(points: int, columns: int = 105, rows: int = 17) -> BrailleCanvas:
    """A plot's work: limits, two courses, all rows as text."""
    x = np.arange(points, dtype=np.float64)
    y = np.random.default_rng(1).normal(0.5, 0.1, points)
    limits = robust_limits(y, y)
    canvas = BrailleCanvas(columns, rows)
    for layer, connect in ((1, False), (2, True)):
        canvas.draw(column_spans(x, y, (0.0, points - 1.0), columns * 2, connect), limits, layer)
    for row in range(rows):
        canvas.runs(row)
    return canvas


def test_work_of_a_plot_does_not_grow_with_its_points() -> None:
    few, many = calls_of(lambda: draw(1_000)), calls_of(lambda: draw(100_000))
    assert many < few * 1.2 + 50
    assert many < 3_000


def test_every_spike_is_in_its_column() -> None:
    y = np.full(100_000, 0.5)
    y[77_777] = 9.0
    y[123] = -3.0
    spans = column_spans(np.arange(100_000.0), y, (0.0, 99_999.0), 200, connect=False)
    assert np.nanmax(spans.high) == 9.0 and np.nanmin(spans.low) == -3.0
    assert int(np.nanargmax(spans.high)) == round(77_777 / 99_999 * 199)


def test_dots_lie_where_they_should() -> None:
    spans = column_spans(np.array([0.0, 3.0]), np.array([0.0, 1.0]), (0.0, 3.0), 4, connect=False)
    pattern = codes(spans, (0.0, 1.0), rows=1)
    assert pattern.tolist() == [[0x40, 0x08]]  # bottom left, and top right of the second cell
    joined = column_spans(np.array([0.0, 3.0]), np.array([0.0, 1.0]), (0.0, 3.0), 4, connect=True)
    assert not np.isnan(joined.low).any()
    assert np.all(joined.high[:-1] >= joined.low[1:])  # no hole between columns


def test_values_outside_the_limits_lie_on_the_border_and_nan_nowhere() -> None:
    x, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([9.0, np.nan, np.inf, -9.0])
    pattern = codes(column_spans(x, y, (0.0, 3.0), 4, connect=False), (0.0, 1.0), rows=2)
    assert pattern.tolist() == [[0x01, 0], [0, 0x80]]
    empty = column_spans(x, np.full(4, np.nan), (0.0, 3.0), 4, connect=True)
    assert np.isnan(empty.low).all()
    assert robust_limits(np.full(4, np.nan)) == (0.0, 1.0)


def test_limits_are_robust_and_never_empty() -> None:
    course = np.random.default_rng(2).normal(0.5, 0.1, 5_000)
    course[40] = 1e6
    low, high = robust_limits(course)
    assert -0.2 < low < 0.4 and 0.6 < high < 1.2
    low, high = robust_limits(np.full(10, 3.0))
    assert low < 3.0 < high
    low, high = robust_limits(np.zeros(10))
    assert low < 0.0 < high


def test_layers_share_a_row_without_losing_cells() -> None:
    canvas = draw(300, columns=60, rows=8)
    for row in range(8):
        assert sum(len(text) for text, _ in canvas.runs(row)) == 60
        assert "".join(text for text, _ in canvas.runs(row, ascii_only=True)).isascii()


def test_quadrants_split_a_block_in_its_two_colours() -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[:2, 0] = 255  # the left half of the first block
    pixels[2:, 2:] = (200, 10, 10)
    pattern, front, back = split_quadrants(pixels)
    assert pattern[0, 0] == 5 and front[0, 0].tolist() == [255, 255, 255] and back[0, 0].tolist() == [0, 0, 0]
    assert pattern[1, 1] == 0 and back[1, 1].tolist() == [200, 10, 10]


@pytest.mark.parametrize(
    ("picture", "box", "cells"),
    [((64, 64), (60, 20), (40, 20)), ((1000, 10), (60, 20), (60, 1)), ((832, 1216), (20, 11), (15, 11))],
)
def test_pictures_keep_their_shape(picture: tuple[int, int], box: tuple[int, int], cells: tuple[int, int]) -> None:
    assert fit(*picture, *box) == cells


def test_broken_pictures_say_so(tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    write_picture(good, 0, 1.0)
    data = good.read_bytes()
    assert load_picture(good, 20, 10).rows == 10
    assert load_picture(good, 20, 10, ascii_only=True).lines[0][0][0].isascii()
    for name, content in {
        "zero": b"",
        "half": data[: len(data) // 2],
        "html": b"<html>",
        "jpeg": b"\xff\xd8\xff",
    }.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(content)
        assert "cannot be shown" in load_picture(path, 20, 10).problem
    assert "cannot be shown" in load_picture(tmp_path / "absent.png", 20, 10).problem


def test_film_shows_the_current_picture() -> None:
    samples = [SampleSaved(f"/{n}", n, n, n % 2, "p", 1) for n in range(12)]
    assert [s.step for s in film_of(samples, samples[11], 4)] == [5, 7, 9, 11]
    assert samples[1] in film_of(samples, samples[1], 4)
    assert film_of(samples, None, 4) == []
    assert len(film_of(samples[:2], samples[0], 4)) == 1


def test_lines_are_wrapped_at_spaces_by_cells() -> None:
    assert wrap("one two three", 7) == ["one two", "three"]
    assert wrap("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    assert wrap("漢字漢字", 4) == ["漢字", "漢字"]
    assert wrap("", 4) == [""]


def test_numbers_are_short() -> None:
    assert [duration(s) for s in (None, 5, 3599, 3600, 90_061)] == ["--:--", "00:05", "59:59", "1:00:00", "1d 01:01"]
    assert [short_time(s) for s in (1.42, 0.085, 0.0003)] == ["1.42 s", "85 ms", "0.3 ms"]
    assert [size(n) for n in (5, 812_000, 34_100_000, 2_300_000_000)] == ["5 B", "812 kB", "34.1 MB", "2.3 GB"]
    for value in (0.0, 1e-4, -0.5, 123456.0, 0.12345, 99999.0, -1e-7, float("nan")):
        assert len(number(value)) <= 7, number(value)


def test_signals_are_noted_and_handlers_return() -> None:
    came: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals(came.append) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert came == [signal.SIGTERM, signal.SIGINT] and signals.exit_code == exit_code_of(signal.SIGTERM) == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_ignored_signals_stay_ignored() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with StopSignals(lambda number: None):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


def test_marks_of_a_long_run_keep_room_for_their_labels() -> None:
    def marks(count: int, every: int = 0) -> list[Mark]:
        return [
            Mark(n, "x", str(n), "plot--mark" if every and n % every == 0 else "plot--axis")
            for n in range(1, count + 1)
        ]

    assert thinned(marks(10), 80) == marks(10)
    assert [mark.label for mark in thinned(marks(48), 80)] == [str(n) for n in range(5, 49, 5)]
    assert [mark.label for mark in thinned(marks(48, 4), 80)] == [str(n) for n in range(4, 49, 4)]
    assert all(int(mark.label) % 4 == 0 for mark in thinned(marks(110, 4), 80))
    by_hand = Mark(7.5, "o", "", "plot--mark")
    assert by_hand in thinned([*marks(400), by_hand], 80)
    assert len(thinned(marks(100_000), 80)) <= 80 // 9


def test_an_axis_ends_at_a_round_number() -> None:
    assert [round_top(value) for value in (4e-3, 4.1e-3, 1e-4, 0.0)] == pytest.approx([4e-3, 5e-3, 1e-4, 1.0])


@pytest.mark.parametrize("width", [40, 52, 60, 74, 90, 120, 200])
def test_a_stages_detail_is_left_out_or_readable(width: int) -> None:
    bar, detail = shared(width)
    assert 6 <= bar <= 30 and (detail == 0 or detail >= DETAIL)
    assert (detail > 0) == (width >= 76)
