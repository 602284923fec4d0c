"""The queue of machine captions: taken whole, in part or by kind, refused, taken back, byte by byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_pictures import add

from engine.captioners.drafts import IN_PART, REFUSED, TAKEN, Draft, drafts_of, save_draft, size_of
from engine.dataset.applying import Wanted, apply
from engine.dataset.journal import Journal
from engine.errors import DatasetError
from tui.catalog import Row
from tui.review import Queue, waiting


def row(folder: Path, name: str, caption: str | None, machine: str | None, model: str = "joy") -> Row:
    """A picture of the catalog, with what a machine says of it."""
    path = add(folder, name, caption)
    if machine is not None:
        save_draft(path, Draft(machine, model, "Describe it.", 1.0, size_of(path)))
    return Row(path, name, path.with_suffix(".txt"), caption.strip() if caption is not None else None)


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    return [
        row(tmp_path, "a.png", "a cat\r\n", "a black cat on a mat"),
        row(tmp_path, "b.png", None, "a dog"),
        row(tmp_path, "c.png", "a red cup", "a blue cup"),
        row(tmp_path, "d.png", "the same", "the same"),
        row(tmp_path, "e.png", "nobody asked", None),
    ]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.txt"))}


def verdicts(rows: list[Row]) -> dict[str, str]:
    found = drafts_of(row.path for row in rows)
    return {path.name: draft.verdict for path, draft in found if isinstance(draft, Draft)}


def queue_of(rows: list[Row], journal: Journal) -> Queue:
    items, damaged = waiting(rows)
    assert not damaged
    return Queue(items, journal)


def test_only_what_differs_and_is_undecided_waits(rows: list[Row], tmp_path: Path) -> None:
    queue = queue_of(rows, Journal())
    assert [item.row.name for item in queue.items] == ["a.png", "b.png", "c.png"]
    queue.refuse([queue.items[0]])
    assert [item.row.name for item in queue_of(rows, Journal()).items] == ["b.png", "c.png"]
    path = tmp_path / ".lorakiln" / "captions-by-machine" / "joy" / "b.png.json"
    path.write_bytes(path.read_bytes()[:-9])
    assert waiting(rows)[1] == 1


def test_a_part_is_taken_and_comes_back_byte_by_byte(rows: list[Row], tmp_path: Path) -> None:
    before, journal = files(tmp_path), Journal(tmp_path / "undo.jsonl")
    queue = queue_of(rows, journal)
    item = queue.item
    assert item is not None and item.whole and item.text == "a black cat on a mat"
    item.chosen = {at for at in item.choices if "black" in item.pieces[at].after}
    assert len(item.choices) == 2 and item.text == "a black cat"
    outcome = queue.take([item], whole=False)
    assert len(outcome.done) == 1 and files(tmp_path)["a.txt"] == b"a black cat\r\n"
    assert verdicts(rows)["a.png"] == IN_PART and queue.item is not item
    assert queue.undo() is not None and files(tmp_path) == before
    assert queue.item is item and verdicts(rows)["a.png"] == "" and queue.undo() is None


def test_a_caption_that_is_not_there_comes_and_goes(rows: list[Row], tmp_path: Path) -> None:
    queue = queue_of(rows, Journal())
    queue.step(1)
    assert queue.item is not None
    queue.take([queue.item], whole=True)
    assert files(tmp_path)["b.txt"] == b"a dog\n" and verdicts(rows)["b.png"] == TAKEN
    queue.undo()
    assert "b.txt" not in files(tmp_path)


def test_all_of_a_kind_are_one_step(rows: list[Row], tmp_path: Path) -> None:
    rows.append(row(tmp_path, "f.png", "a cup", "another cup", "wd"))
    before, journal = files(tmp_path), Journal()
    queue = queue_of(rows, journal)
    names = {kind: [item.row.name for item in items] for kind, (_, items) in queue.kinds().items()}
    assert names["fresh"] == ["b.png"] and names["adding"] == ["a.png"]
    assert names["model"] == ["a.png", "b.png", "c.png"] and len(names["all"]) == 4
    queue.take(queue.kinds()["model"][1], whole=False)
    assert [item.row.name for item in queue.items] == ["f.png"] and len(journal.steps()) == 1
    queue.refuse(queue.kinds()["refuse"][1])
    assert not queue.items and queue.item is None and verdicts(rows)["f.png"] == REFUSED
    queue.undo()
    queue.undo()
    assert files(tmp_path) == before and len(queue.items) == 4
    assert set(verdicts(rows).values()) == {""}


def test_what_others_wrote_meanwhile_is_left_and_told(rows: list[Row], tmp_path: Path) -> None:
    queue = queue_of(rows, Journal())
    (tmp_path / "a.txt").write_text("theirs")
    (tmp_path / "b.txt").write_text("theirs too")
    outcome = queue.take(queue.items, whole=True)
    assert [path.name for path, _ in outcome.refused] == ["a.txt", "b.txt"] and len(outcome.done) == 1
    assert files(tmp_path)["a.txt"] == b"theirs" and files(tmp_path)["c.txt"] == b"a blue cup"
    assert [item.row.name for item in queue.items] == ["a.png", "b.png"]


def test_a_decision_under_a_later_change_is_not_taken_back(rows: list[Row], tmp_path: Path) -> None:
    journal = Journal()
    queue = queue_of(rows, journal)
    queue.take([queue.items[0]], whole=True)
    apply("by hand", [Wanted(rows[4].caption_path, "nobody asked", "somebody did")], journal)
    with pytest.raises(DatasetError, match="cannot be taken back here"):
        queue.undo()
    assert files(tmp_path)["a.txt"] == b"a black cat on a mat\r\n"


def test_two_models_for_one_picture_write_one_caption(rows: list[Row], tmp_path: Path) -> None:
    save_draft(rows[0].path, Draft("a tabby", "wd", "", 2.0, size_of(rows[0].path)))
    queue = queue_of(rows[:1], Journal())
    assert [item.draft.model for item in queue.items] == ["joy", "wd"]
    queue.take(queue.items, whole=True)
    assert files(tmp_path)["a.txt"] == b"a black cat on a mat\r\n"
    rows[0].caption = "a black cat on a mat"
    assert queue.item is not None and queue.item.draft.model == "wd" and queue.item.caption == rows[0].caption
