"""A caption's past: any steps taken back give the texts from before, also after a restart and after damage."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dataset.past import Edit, Past, difference, open_past, past_path, write_news
from engine.errors import DiskError

TEXTS = st.text(alphabet="ab \n,é😀\ud800", max_size=12)


@given(TEXTS, TEXTS)
def test_a_difference_leads_there_and_back(before: str, after: str) -> None:
    edit = difference(before, after)
    assert edit.done(before) == after and edit.undone(after) == before
    assert not (edit.removed and edit.inserted) or edit.removed[0] != edit.inserted[0]


@given(TEXTS, st.lists(st.tuples(TEXTS, st.booleans()), max_size=12))
def test_all_undone_is_the_beginning_and_all_done_again_the_end(began: str, steps: list[tuple[str, bool]]) -> None:
    past = Past(began)
    seen = [began]
    for number, (text, typed) in enumerate(steps):
        past.take(text, float(number % 3), typed)
        seen.append(text)
    while past.undo():
        assert past.text in seen
    assert past.text == began
    while past.redo():
        assert past.text in seen
    assert past.text == seen[-1]


def test_typing_without_a_rest_is_one_step() -> None:
    past = Past("cat")
    for number in range(1, 5):
        past.take("cat" + " sat"[:number], number * 0.2, typed=True)
    past.take("cat sa", 1.0, typed=True)  # deleting is another step
    past.take("cat s", 1.1, typed=True)
    past.take("cat so", 9.0, typed=True)  # after a rest, too
    past.close()
    past.take("cat son", 9.1, typed=True)
    texts = [past.text]
    while past.undo():
        texts.append(past.text)
    assert texts == ["cat son", "cat so", "cat s", "cat sat", "cat"]


def test_a_new_step_forgets_what_was_undone() -> None:
    past = Past("a")
    past.take("ab")
    past.undo()
    past.take("ac")
    assert past.redo() is None and past.undo() == Edit(1, "", "c") and past.text == "a"


@pytest.mark.parametrize("seed", range(8))
def test_a_restart_at_any_moment_keeps_every_step(tmp_path: Path, seed: int) -> None:
    """Random edits, undos and restarts, against a plain list of texts."""
    draw = random.Random(seed)
    path = past_path(tmp_path / "undo", tmp_path / "a.txt")
    past, texts, at = open_past(path, "x", "x"), ["x"], 0
    for _ in range(60):
        act = draw.random()
        if act < 0.5:
            text = texts[at][: draw.randint(0, len(texts[at]))] + draw.choice(["q", "\n", "é", "two words"])
            if text != past.text:
                texts[at + 1 :] = [text]
                at += 1
            past.take(text)
        elif act < 0.7:
            at -= past.undo() is not None
        elif act < 0.8:
            at += past.redo() is not None
        elif act < 0.9:
            write_news(path, past.news())
        else:
            write_news(path, past.news())
            past = open_past(path, past.text, texts[0])
        assert past.text == texts[at] and len(past) == at
    while past.undo():
        at -= 1
        assert past.text == texts[at]
    assert at == 0


def kept(path: Path, *texts: str) -> Past:
    past = Past(texts[0])
    for text in texts[1:]:
        past.take(text)
        write_news(path, past.news())
    return past


def test_what_others_wrote_is_one_more_step(tmp_path: Path) -> None:
    path = past_path(tmp_path, tmp_path / "a.txt")
    kept(path, "a", "ab")
    past = open_past(path, "theirs", "theirs")
    assert past.text == "theirs" and past.undo() and past.text == "ab" and past.undo() and past.text == "a"


def test_a_torn_end_costs_the_last_step_and_is_mended(tmp_path: Path) -> None:
    path = past_path(tmp_path, tmp_path / "a.txt")
    kept(path, "a", "ab", "abc")
    path.write_bytes(path.read_bytes()[:-9])
    past = open_past(path, "abc", "abc")
    assert past.spoilt and past.text == "abc"
    past.take("abcd")
    write_news(path, past.news())
    again = open_past(path, "abcd", "")
    assert not again.spoilt and [again.undo() and again.text for _ in range(3)] == ["abc", "ab", "a"]


def test_a_file_without_a_beginning_is_none(tmp_path: Path) -> None:
    path = past_path(tmp_path, tmp_path / "a.txt")
    for data in (b"", b"{}\n", b'{"at": 0, "cut": "", "put": "x"}\n', b"\xff\n", b'{"text": 3}\n'):
        path.write_bytes(data)
        past = open_past(path, "now", "began")
        assert past.undo() and past.text == "began"


def test_a_file_that_is_gone_is_written_anew_next_time(tmp_path: Path) -> None:
    path = past_path(tmp_path, tmp_path / "a.txt")
    past = kept(path, "a", "ab")
    path.unlink()
    past.take("abc")
    with pytest.raises(DiskError):
        write_news(path, past.news())
    assert not path.exists()
    past.spoilt = True
    past.take("abcd")
    write_news(path, past.news())
    assert len(open_past(path, "abcd", "")) == 3


def test_nothing_is_written_of_a_text_that_nobody_edited(tmp_path: Path) -> None:
    past = open_past(past_path(tmp_path, tmp_path / "a.txt"), "a", "a")
    write_news(tmp_path / "x", past.news())
    assert not list(tmp_path.iterdir())
