"""Opinions on epochs: kept, read back, and never believed where they are no opinions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tui.judged import JUDGED_NAME, NO_OPINION, Judged, Opinion, read_judged, write_judged


def test_what_is_written_is_read(tmp_path: Path) -> None:
    judged = Judged().with_opinion(3, stars=4, note="eyes [b]right[/b]", obeys="partly").with_winner(3, 7)
    write_judged(tmp_path, judged)
    assert read_judged(tmp_path) == judged
    assert judged.of(3) == Opinion(4, "eyes [b]right[/b]", obeys="partly", wins=1, shown=1)
    assert judged.of(7) == Opinion(shown=1)


def test_an_opinion_taken_back_is_none() -> None:
    judged = Judged().with_opinion(3, stars=4).with_opinion(3, stars=0)
    assert judged.epochs == {}
    assert judged.of(3) is NO_OPINION


def test_no_file_is_no_opinion(tmp_path: Path) -> None:
    assert read_judged(tmp_path) == Judged()


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"chosen": 2, "crc32": "00000000"}', b"[" * 100_000])
def test_a_damaged_file_is_set_aside(tmp_path: Path, data: bytes) -> None:
    (tmp_path / JUDGED_NAME).write_bytes(data)
    assert read_judged(tmp_path) == Judged()
    assert (tmp_path / f"{JUDGED_NAME}.bad").read_bytes() == data


def test_values_that_are_none_are_left_out(tmp_path: Path) -> None:
    epochs = {"1": {"stars": 9, "obeys": "maybe", "wins": True, "note": 3, "clean": "no"}, "-2": {"stars": 1}, "x": 1}
    (tmp_path / JUDGED_NAME).write_text(json.dumps({"chosen": "7", "epochs": epochs}))
    assert read_judged(tmp_path) == Judged({1: Opinion(clean="no")})
