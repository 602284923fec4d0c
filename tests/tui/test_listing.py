"""Marks and what a command for several pictures is about, without a screen."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.dataset.query import Query, query_of
from tui.catalog_rows import Row
from tui.listing import Listing
from tui.session import SessionState


def row(number: int, caption: str = "a ball") -> Row:
    name = f"img{number}.png"
    return Row(Path(name), name, Path(f"img{number}.txt"), caption, haystack=f"{name}\n{caption}")


class FakeCatalog(SimpleNamespace):
    """As much of a catalog as a listing asks for."""

    state, clip_limit, t5_limit = "ready", 77, 512

    def query(self, text: str) -> Query:
        return query_of(text)


@pytest.fixture
def listing() -> Listing:
    """Ten pictures, the even ones of a ball, the odd ones of a house."""
    rows = [row(number, "a house" if number % 2 else "a ball") for number in range(10)]
    found: Any = FakeCatalog(rows=rows)
    made = Listing(found, SessionState())
    made.take()
    return made


def names(rows: Any) -> str:
    return " ".join(one.name[3:-4] for one in rows)


def filtered(listing: Listing, words: str) -> None:
    listing.session.filter = words
    listing.find()


def test_the_scope_is_what_is_marked_else_found_else_all(listing: Listing) -> None:
    assert names(listing.scope()[0]) == "0 1 2 3 4 5 6 7 8 9" and listing.scope()[1] == "all"
    filtered(listing, "house")
    assert (names(listing.scope()[0]), listing.scope()[1]) == ("1 3 5 7 9", "found")
    filtered(listing, "nothing holds this")
    assert listing.scope() == ([], "found")
    filtered(listing, "ball OR")
    assert listing.fault is not None and listing.scope() == ([], "found"), "the last filter that could be read"
    filtered(listing, "ball OR house")
    assert listing.fault is None and len(listing.rows) == 10
    filtered(listing, "")
    listing.mark(4)
    filtered(listing, "house")
    assert (names(listing.scope()[0]), listing.scope()[1]) == ("4", "marked"), "a filter takes no mark away"


def test_marks_one_by_one_in_ranges_and_all(listing: Listing) -> None:
    listing.mark(2)
    listing.mark_range(5)
    assert names(listing.scope()[0]) == "2 3 4 5" and listing.marked == 4
    listing.mark(4)
    listing.mark_range(2)
    assert names(listing.scope()[0]) == "5" and listing.marked == 1, "a range does as its beginning did"
    filtered(listing, "ball")
    listing.mark_found()
    listing.mark_found()
    assert names(listing.scope()[0]) == "0 2 4 5 6 8" and listing.marked == 6
    listing.unmark()
    assert listing.marked == 0 and listing.scope()[1] == "found"
    listing.mark_range(1)
    assert names(listing.scope()[0]) == "2", "without a beginning a range is one picture"
    listing.mark(99)
    assert listing.marked == 1


def test_a_range_whose_beginning_is_hidden_begins_anew(listing: Listing) -> None:
    listing.mark(0)
    filtered(listing, "house")
    listing.mark_range(2)
    assert names(listing.scope()[0]) == "0 5"


def test_marks_of_pictures_that_went_are_not_counted(listing: Listing) -> None:
    listing.mark(0)
    listing.mark(1)
    rows = listing.catalog.rows
    listing.catalog.rows = rows[1:]  # type: ignore[misc]
    listing.take()
    assert listing.marked == 1 and names(listing.scope()[0]) == "1"
