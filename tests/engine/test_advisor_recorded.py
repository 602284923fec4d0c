"""The advisor on recorded runs: the tables in docs/sweet-spot.md are what it says today, and it never contradicts
itself on the way."""

import json
from pathlib import Path

import pytest

from engine.training.advisor import advise
from tests.bench.sweet import check, look
from tests.bench.sweet.oracle import best_of

RECORDED = sorted(check.RECORDED.glob("*.json"))
PAGE = Path(__file__).resolve().parents[2] / "docs" / "sweet-spot.md"


def test_the_page_holds_the_tables_as_they_come_out():
    """``python -m tests.bench.sweet.check`` prints what belongs there."""
    page = PAGE.read_text()
    missing = [part for part in check.tables().split("\n\n") if part not in page]
    assert not missing, f"docs/sweet-spot.md says otherwise, or nothing, of:\n{missing[0]}"


def test_every_recorded_run_is_declared():
    assert {path.stem for path in RECORDED} <= {spec.name for spec in check.RUNS}


def test_the_best_is_the_oracles_own():
    """The set of epochs that are as good is counted here again: its first is what the oracle itself calls best."""
    for path in RECORDED:
        base, *worths = check.worths_of(json.loads(path.read_text()))
        assert check.as_good(base, worths)[0] == best_of(base, worths) + 1


def test_a_run_can_be_looked_at_in_plain_text():
    told = list(look.lines(check.RUNS[0]))
    assert len(told) == 2 + 41 and "best 34" in told[0] and told[-1].endswith("*") and " +>  " in told[34]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_it_never_contradicts_itself(path):
    """At every moment of a run it says something that holds, of the run and of each of its epochs."""
    found = check.measured_of(json.loads(path.read_text()))
    for count in range(len(found) + 1):
        advice = advise(found[:count])
        assert advice.text and (not advice.over or advice.verdict == "over")
        if not advice.best:
            continue
        newest = found[count - 1].epoch
        assert 0 < advice.first <= advice.best <= advice.last <= newest
        told = [advice.of_epoch(epoch) for epoch in range(1, newest + 1)]
        assert told[: advice.first - 1] == ["under"] * (advice.first - 1)
        assert set(told[advice.first - 1 : advice.last]) == {"in range"}
        assert set(told[advice.last :]) <= ({"over"} if advice.over else {"in range", "unclear"})
        assert advice.verdict == "under" or told[-1] == advice.verdict
