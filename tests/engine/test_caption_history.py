"""What a run keeps of its captions, and how changed files are found."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dataset.history import CaptionHistory, load_history
from engine.dataset.scan import Sample
from engine.dataset.watch import CaptionWatch
from engine.errors import DiskError

ENDINGS = (".txt", ".caption")
LONG_AGO = 1_600_000_000


def recorded(path: Path) -> CaptionHistory:
    """A history of three epochs, the second without news."""
    history = CaptionHistory(path)
    history.record(1, {"/d/a.png": "a", "/d/\udcff.png": "b\n\u2028c"})
    history.record(2, {})
    history.record(3, {"/d/a.png": "A"})
    return history


def test_what_is_recorded_comes_back(tmp_path: Path) -> None:
    history = recorded(tmp_path / "captions.jsonl")
    back = load_history(tmp_path / "captions.jsonl")
    assert back == history and back.decided == 3
    assert back.latest() == {"/d/a.png": "A", "/d/\udcff.png": "b\n\u2028c"}
    back.record(1, {"/d/new.png": "later found"})
    assert load_history(tmp_path / "captions.jsonl").decided == 3
    assert load_history(tmp_path / "absent.jsonl").decided == 0


@given(cut=st.integers(0, 200))
def test_a_torn_end_is_cut_off_and_written_over(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "captions.jsonl"
    recorded(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - min(cut, len(data))])
    back = load_history(path)
    whole = path.read_bytes()
    assert data.startswith(whole) and (not whole or whole.endswith(b"\n"))
    assert back.decided == whole.count(b"\n")
    back.record(4, {"/d/a.png": "Z"})
    assert load_history(path) == CaptionHistory(path, back.epochs)


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b'{"epoch": 0, "captions": {}}', b'{"epoch": 2, "captions": {"a": 1}}', b"\xff", b"[" * 90_000],
    ids=["torn", "list", "epoch", "number", "bytes", "deep"],
)
def test_damage_in_the_middle_ends_the_history_there(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "captions.jsonl"
    recorded(path)
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, line, b"\n", *rest]))
    back = load_history(path)
    assert (back.decided, back.damaged) == (1, 3)
    assert path.read_bytes() == first


def test_a_history_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(DiskError):
        CaptionHistory(tmp_path / "absent" / "captions.jsonl").record(1, {"a": "b"})
    (tmp_path / "folder").mkdir()
    with pytest.raises(DiskError):
        load_history(tmp_path / "folder")


def test_the_name_of_a_new_history_stands_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr("engine.dataset.history.flush", flushed.append)
    history = CaptionHistory(tmp_path / "captions.jsonl")
    history.record(1, {"a": "b"})
    history.record(2, {"a": "c"})
    assert flushed == [tmp_path / "captions.jsonl", tmp_path, tmp_path / "captions.jsonl"]


def test_every_line_is_plain_ascii(tmp_path: Path) -> None:
    recorded(tmp_path / "captions.jsonl")
    for line in (tmp_path / "captions.jsonl").read_text("ascii").splitlines():
        assert json.loads(line).keys() == {"epoch", "captions", "crc32"}


@pytest.fixture
def watched(tmp_path: Path) -> tuple[CaptionWatch, list[Sample], dict[int, str]]:
    """Three pictures, the last without a caption, looked at once; their files were written long ago."""
    samples = []
    for index, text in enumerate(("one", "two", None)):
        caption = tmp_path / f"{index}.txt" if text else None
        if caption and text:
            settled(caption, text)
        picture = tmp_path / f"{index}.png"
        samples.append(Sample(index, picture, picture.name, caption, text or "", 64, 64, 1, False))
    watch = CaptionWatch(samples, ENDINGS)
    now = {sample.index: sample.caption for sample in samples}
    found = watch.look(lambda sample: now[sample.index])
    assert not found.texts and not found.remarks
    return watch, samples, now


def settled(path: Path, text: str) -> None:
    """Write a caption long ago."""
    path.write_text(text)
    os.utime(path, (LONG_AGO, LONG_AGO))


def test_files_are_read_only_if_they_changed(watched, monkeypatch) -> None:
    watch, _, now = watched
    monkeypatch.setattr("engine.dataset.watch.UNSETTLED_NS", 0)
    watch.look(lambda sample: now[sample.index])
    monkeypatch.setattr("engine.dataset.watch.read_caption", None)
    assert not watch.look(lambda sample: now[sample.index]).texts


def test_a_file_changed_an_instant_ago_is_read_again(watched) -> None:
    """An edit of the same length within one tick of the clock shows in nothing but the text."""
    watch, samples, now = watched
    samples[0].caption_path.write_text("eno")
    stat = os.stat(samples[0].caption_path)
    assert watch.look(lambda sample: now[sample.index]).texts == {0: "eno"}
    samples[0].caption_path.write_text("noe")
    os.utime(samples[0].caption_path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert watch.look(lambda sample: now[sample.index]).texts == {0: "noe"}


def test_new_gone_empty_and_unreadable_files(watched, tmp_path: Path) -> None:
    watch, _, now = watched
    (tmp_path / "0.txt").unlink()
    (tmp_path / "1.txt").write_text(" \n")
    (tmp_path / "2.caption").write_text("three")
    found = watch.look(lambda sample: now[sample.index])
    assert found.texts == {1: "", 2: "three"}
    assert found.remarks == [
        "0.png: its caption file is gone; it keeps the text it had", "1.png: its caption is empty now"
    ]  # fmt: skip
    (tmp_path / "0.caption").write_text("one again")
    (tmp_path / "2.txt").write_bytes(b"\xff\xfe\x00")
    found = watch.look(lambda sample: found.texts.get(sample.index, now[sample.index]))
    assert found.texts[0] == "one again" and "2.png" in found.remarks[0] and "keeps" in found.remarks[0]


def test_a_better_place_wins_and_links_to_elsewhere_are_left_alone(watched, tmp_path: Path) -> None:
    watch, _, now = watched
    (tmp_path / "0.caption").write_text("less")
    (tmp_path / "elsewhere").write_text("not of this dataset")
    (tmp_path / "2.txt").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "2.caption")
    assert not watch.look(lambda sample: now[sample.index]).texts


def test_a_caption_spelled_in_another_way_is_found_where_the_scan_found_it(tmp_path: Path) -> None:
    (tmp_path / "a.TXT").write_text("one")
    sample = Sample(0, tmp_path / "a.png", "a.png", tmp_path / "a.TXT", "one", 64, 64, 1, False)
    watch = CaptionWatch([sample], ENDINGS)
    assert not watch.look(lambda _: "one").texts
    (tmp_path / "a.TXT").write_text("two")
    (tmp_path / "a.caption").write_text("less")
    assert watch.look(lambda _: "one").texts == {0: "two"}
    (tmp_path / "a.txt").write_text("exact")
    assert watch.look(lambda _: "two").texts == {0: "exact"}
