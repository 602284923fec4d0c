"""A large folder: rows are there while the rest of it is still looked for, and stay where they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_pictures import add, dataset, wait_for

from engine.dataset import walk as walking
from engine.dataset.pairs import Pair
from engine.dataset.scan import each_pair
from engine.dataset.sidecar import load_sidecar
from tui import catalog_load
from tui.catalog import Catalog
from tui.listing import Listing
from tui.session import SessionState


class Gate:
    """Stands in for the search: lets so many pairs through, and holds the others up until it is opened."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._through = threading.Semaphore(0)
        self._open = False
        patch.setattr(catalog_load, "each_pair", self._each)
        patch.setattr(catalog_load, "CHUNK", 1)
        patch.setattr(catalog_load, "TELL_S", -1.0)

    def _each(self, *args: Any) -> Iterator[Pair]:
        for pair in each_pair(*args):
            if not self._open:
                self._through.acquire()
            yield pair

    def let(self, count: int) -> None:
        self._through.release(count)

    def open(self) -> None:
        self._open = True
        self._through.release(1000)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Held up, and opened at the end: the catalog's thread must come out of it."""
    made = Gate(monkeypatch)
    yield made
    made.open()


@pytest.fixture
def catalog(gate: Gate) -> Iterator[Catalog]:
    """A catalog with a decoder of its own."""
    made = Catalog()
    yield made
    gate.open()
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures, some in a folder within that comes between the others."""
    for number in range(1, 9):
        add(tmp_path, f"img{number}.png")
    for number in range(4):
        add(tmp_path, f"img3b/{number}.png")
    return tmp_path


def test_rows_show_as_they_come_and_only_grow_at_the_end(gate: Gate, catalog: Catalog, folder: Path) -> None:
    catalog.open(dataset(folder), None)
    gate.let(3)
    wait_for(lambda: len(catalog.rows) == 3)
    first = catalog.rows
    assert catalog.state == "scanning" and catalog.stage == "listing pictures 3"
    gate.let(5)
    wait_for(lambda: len(catalog.rows) == 8)
    second = catalog.rows
    assert second[:3] == first and len(first) == 3, "a list that was handed out is not changed"
    gate.open()
    wait_for(lambda: catalog.state == "ready")
    assert catalog.rows[: len(second)] == second
    assert [row.name for row in catalog.rows] == [
        *(f"img{n}.png" for n in (1, 2, 3)), *(f"img3b/{n}.png" for n in range(4)),
        *(f"img{n}.png" for n in range(4, 9)),
    ]  # fmt: skip
    assert all(row.caption == "a caption" and row.width for row in catalog.rows) and catalog.stage == ""


def test_the_selection_stays_while_rows_come(gate: Gate, catalog: Catalog, folder: Path) -> None:
    listing = Listing(catalog, SessionState())
    catalog.open(dataset(folder), None)
    gate.let(3)
    wait_for(lambda: len(catalog.rows) == 3)
    listing.take()
    listing.go(1)
    listing.mark(2)
    chosen = listing.chosen
    gate.open()
    wait_for(lambda: catalog.state == "ready")
    listing.take()
    assert listing.chosen is chosen and listing.cursor == 1 and len(listing.rows) == 12
    assert listing.marked == 1 and listing.rows[2].marked


def test_what_the_user_notes_meanwhile_is_kept(gate: Gate, catalog: Catalog, folder: Path) -> None:
    catalog.open(dataset(folder), None)
    gate.let(3)
    wait_for(lambda: len(catalog.rows) == 3)
    assert catalog.rate(catalog.rows[1], 4)
    gate.open()
    wait_for(lambda: catalog.state == "ready" and bool(load_sidecar(folder).pictures))
    assert catalog.rows[1].stars == 4 and load_sidecar(folder).of("img2.png").stars == 4


def test_looking_again_meanwhile_takes_no_row_away(gate: Gate, catalog: Catalog, folder: Path) -> None:
    catalog.open(dataset(folder), None)
    gate.let(5)
    wait_for(lambda: len(catalog.rows) == 5)
    before = catalog.rows
    catalog.refresh()
    gate.let(3)  # the first search ends at the next pair, another begins
    wait_for(lambda: catalog.stage in ("listing pictures 1", "listing pictures 2"))
    assert catalog.rows[:5] == before
    gate.open()
    wait_for(lambda: catalog.state == "ready")
    assert catalog.rows[: len(before)] == before and len(catalog.rows) == 12


def test_another_dataset_is_opened_without_waiting_for_the_end(
    gate: Gate, catalog: Catalog, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    add(other, "a.png")
    catalog.open(dataset(folder), None)
    gate.let(3)
    wait_for(lambda: len(catalog.rows) == 3)
    catalog.open(dataset(other), None)
    gate.let(2)  # one that the first search waits for, and the other dataset's
    wait_for(lambda: catalog.state == "ready")
    assert [row.name for row in catalog.rows] == ["a.png"]


def test_files_are_counted_before_the_first_row_is_there(
    gate: Gate, catalog: Catalog, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "TELL_EVERY", 4)
    stages = []
    tell = catalog_load.DatasetReader._tell_soon
    monkeypatch.setattr(
        catalog_load.DatasetReader, "_tell_soon", lambda self: (stages.append(self.stage), tell(self))[1]
    )
    gate.open()
    catalog.open(dataset(folder), None)
    wait_for(lambda: catalog.state == "ready")
    counted = [stage for stage in stages if stage.startswith("looking")]
    assert counted[0] == "looking for pictures, 4 files" and counted[-1] == "looking for pictures, 25 files"
