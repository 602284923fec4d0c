"""The journal of caption steps: what is recorded is there after a restart, whatever became of the file's end."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dataset import step_file as module
from engine.dataset.journal import Change, Journal, Step
from engine.errors import DiskError


def step(number: int, files: int = 2) -> Step:
    """A step that changes some captions."""
    names = ["a.txt", "b\udcff.txt", *(f"{name}.txt" for name in range(files - 2))]
    return Step(
        f"Replace {number}", tuple(Change(Path("/d") / name, None, f"é {number}\n") for name in names[:files])
    )


def test_steps_survive_a_restart_with_their_order(tmp_path: Path) -> None:
    path = tmp_path / "state" / "undo.jsonl"
    journal = Journal(path)
    assert journal.undoable() is None and journal.redoable() is None and not path.parent.exists()
    first, second, third = (journal.record(step(number)) for number in range(3))
    journal.undone(third)
    journal.undone(second)
    back = Journal(path)
    assert (back.undoable(), back.redoable()) == (first, second) and back.steps() == [first, second, third]
    back.redone(second)
    assert (Journal(path).undoable(), Journal(path).redoable()) == (second, third)
    fourth = back.record(step(4))
    assert back.redoable() is None and Journal(path).steps() == [first, second, fourth] and not back.damaged
    back.undone(third)  # gone: not a word of it
    assert Journal(path).undoable() == fourth


def test_what_could_not_be_done_is_taken_out_of_the_step(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "undo.jsonl")
    first, second = journal.record(step(1)), journal.record(step(2))
    journal.amend(first, first.changes)
    journal.amend(second, second.changes[1:])
    for each in (journal, Journal(tmp_path / "undo.jsonl")):
        found = each.undoable()
        assert found is not None and found.what == "Replace 2" and found.changes == second.changes[1:]
    journal.amend(second, ())
    assert journal.undoable() == first == Journal(tmp_path / "undo.jsonl").undoable()


@given(cut=st.integers(1, 400))
def test_a_torn_end_costs_the_last_line_alone(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("journal") / "undo.jsonl"
    journal = Journal(path)
    steps = [journal.record(step(number)) for number in range(5)]
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    left = data[:-cut].count(b"\n")
    back = Journal(path)
    assert back.steps() == steps[:left] and left >= 1
    after = back.record(step(9))
    assert Journal(path).steps() == [*steps[:left], after] and Journal(path).damaged == 0


def test_a_damaged_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "undo.jsonl"
    journal = Journal(path)
    steps = [journal.record(step(number)) for number in range(3)]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"Replace", b"Replaxe") + lines[2])
    back = Journal(path)
    assert back.steps() == [steps[0], steps[2]] and back.damaged == 1
    assert back.record(step(7)).number == 4


def test_a_long_journal_keeps_its_newest_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "undo.jsonl"
    journal = Journal(path)
    steps = [journal.record(step(number, 40)) for number in range(30)]
    for each in (steps[-1], steps[-2]):
        journal.undone(each)
    monkeypatch.setattr(module, "MOST_BYTES", path.stat().st_size // 2)
    first = Journal(path)
    assert (first.undoable(), first.redoable()) == (steps[-3], steps[-2])
    kept = first.steps()
    assert 2 < len(kept) < 15 and kept == steps[-len(kept) :]
    assert path.stat().st_size <= module.MOST_BYTES
    monkeypatch.setattr(module, "MOST_BYTES", 10)
    again = Journal(path)
    made = again.record(step(99))  # into the file that takes the place of the long one
    assert again.undoable() == made and Journal(path).steps() == [made]


def test_without_a_file_it_is_kept_in_memory_and_a_refusal_is_told(tmp_path: Path) -> None:
    journal = Journal()
    assert journal.undoable() is None
    made = journal.record(step(1))
    assert journal.undoable() == made
    (tmp_path / "file").touch()
    with pytest.raises(DiskError):
        Journal(tmp_path / "file" / "undo.jsonl").record(step(1))
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DiskError):
        Journal(tmp_path / "link").record(step(1))
    assert not (tmp_path / "elsewhere").exists()


def test_two_that_write_see_each_others_steps(tmp_path: Path) -> None:
    one, other = Journal(tmp_path / "undo.jsonl"), Journal(tmp_path / "undo.jsonl")
    first = one.record(step(1))
    second = other.record(step(2))
    assert one.undoable() == second and second.number == first.number + 1
    one.undone(second)
    assert (other.undoable(), other.redoable()) == (first, second)
    third = other.record(step(3))
    assert one.steps() == [first, third] == Journal(tmp_path / "undo.jsonl").steps()
    (tmp_path / "undo.jsonl").unlink()
    assert one.undoable() is None
    assert other.record(step(4)).number == 1 and len(one.steps()) == 1
