"""The catalog: rows of a dataset, found, sorted, starred, and kept up to date with the disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_pictures import add, dataset, opened, png, wait_for

from engine.config import DatasetConfig, ModelConfig
from engine.dataset.decoder import Decoder
from engine.dataset.query import EVERYTHING
from engine.dataset.sidecar import SIDECAR_NAME, load_sidecar
from engine.errors import DatasetError, ModelFileError
from profiles.starters import pocket_model
from tui import catalog_load, catalog_thread
from tui.catalog import Catalog, Row
from tui.catalog_rows import matching


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    """A catalog with a decoder of its own."""
    made = Catalog()
    yield made
    made.close()


def row_named(catalog: Catalog, name: str) -> Row:
    return next(row for row in catalog.rows if row.name == name)


def names(catalog: Catalog, text: str = "", sort: str = "name", descending: bool = False) -> list[str]:
    return [row.name for row in catalog.find(text, sort, descending)]


def test_rows_tell_what_is_known_of_each_picture(catalog: Catalog, tmp_path: Path) -> None:
    add(tmp_path, "img10.png", "a red ball", (64, 32))
    add(tmp_path, "img2.png", "", (32, 64))
    add(tmp_path, "sub/b.png", None)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "broken.txt").write_text("x")
    (tmp_path / "img3.png").write_bytes(png())
    (tmp_path / "img3.txt").write_bytes(b"\x80\x81")
    opened(catalog, tmp_path)
    assert catalog.state == "ready" and catalog.error is None and catalog.stage == ""
    assert [row.name for row in catalog.rows] == ["broken.png", "img2.png", "img3.png", "img10.png", "sub/b.png"]
    ball = row_named(catalog, "img10.png")
    assert (ball.width, ball.height, ball.caption, ball.severity, ball.format) == (64, 32, "a red ball", "", "PNG")
    assert ball.bucket is not None and ball.bucket[0] > ball.bucket[1]
    told = {row.name: (row.severity, row.code, row.caption) for row in catalog.rows}
    assert told["img2.png"] == ("warning", "empty-caption", "")
    assert told["img3.png"] == ("error", "caption", None)
    assert told["sub/b.png"] == ("error", "no-caption", None)
    assert told["broken.png"] == ("error", "picture", "x")
    assert row_named(catalog, "sub/b.png").caption_path == tmp_path / "sub" / "b.txt"
    assert all(row.hint for row in catalog.rows if row.severity == "error")


def test_a_picture_with_a_trigger_word_needs_no_caption(catalog: Catalog, tmp_path: Path) -> None:
    add(tmp_path, "a.png", None)
    opened(catalog, tmp_path, captions={"trigger_word": "ohwx"})
    assert [(row.severity, row.code) for row in catalog.rows] == [("warning", "no-caption")]


def test_a_trigger_word_that_is_there_twice_or_misspelt_is_told_one_that_is_missing_is_not(
    catalog: Catalog, tmp_path: Path
) -> None:
    """Training puts a missing one in front: a warning on every row would hide what is wrong."""
    for name, caption in {"a": "ohwx, a cat", "b": "a cat", "c": "ohwx ohwx", "d": "a cat, ohxw"}.items():
        add(tmp_path, f"{name}.png", caption)
    opened(catalog, tmp_path, captions={"trigger_word": "ohwx"})
    assert [row.severity for row in catalog.rows] == ["", "", "warning", "warning"]
    assert "twice" in catalog.rows[2].problem and "otherwise" in catalog.rows[3].problem


def test_hostile_names_are_safe_to_show_and_found(catalog: Catalog, tmp_path: Path) -> None:
    add(tmp_path, "a\x1b]52;c;QQ\x07[red]\u202e.png", "x")
    (tmp_path / os.fsdecode(b"b\xff.png")).write_bytes(png())
    opened(catalog, tmp_path)
    for row in catalog.rows:
        assert row.name.isprintable() and row.problem.isprintable() and "\x1b" not in row.haystack
    assert len(catalog.find("[red]")) == 1


def test_words_find_names_and_captions_and_order_is_kept(catalog: Catalog, tmp_path: Path) -> None:
    add(tmp_path, "anna1.png", "A red Ball", (8, 8))
    add(tmp_path, "anna2.png", "a blue ball", (16, 8))
    add(tmp_path, "bert.png", "red house", (8, 4))
    opened(catalog, tmp_path)
    assert names(catalog, "RED") == ["anna1.png", "bert.png"]
    assert names(catalog, "red ball") == ["anna1.png"]
    assert names(catalog, "-red") == ["anna2.png"]
    assert names(catalog, "anna", descending=True) == ["anna2.png", "anna1.png"]
    assert names(catalog, sort="size") == ["bert.png", "anna1.png", "anna2.png"]
    assert names(catalog, sort="size", descending=True) == ["anna2.png", "anna1.png", "bert.png"]
    assert catalog.index_of(str(tmp_path / "bert.png")) == 2 and catalog.index_of("elsewhere") is None


def test_pictures_of_several_folders_are_told_apart(catalog: Catalog, tmp_path: Path) -> None:
    for folder in ("one/train", "two/train", "more"):
        add(tmp_path / folder, "00.png", f"of {folder}")
    opened(catalog, *(tmp_path / folder for folder in ("one/train", "two/train", "more")))
    assert [row.name for row in catalog.rows] == ["one/train/00.png", "two/train/00.png", "more/00.png"]
    assert names(catalog, "two/") == ["two/train/00.png"]
    assert all(catalog.rate(row, 3) for row in catalog.rows)
    wait_for(lambda: (tmp_path / "more" / SIDECAR_NAME).exists())
    assert load_sidecar(tmp_path / "one" / "train").stars("00.png") == 3


def test_a_folder_inside_another_keeps_its_own_pictures(catalog: Catalog, tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    add(tmp_path, "class/a.png")
    folders = [{"path": tmp_path, "recursive": False}, {"path": tmp_path / "class", "regularization": True}]
    catalog.open(DatasetConfig.model_validate({"folders": folders}), None)
    wait_for(lambda: catalog.state != "scanning")
    assert [row.name for row in catalog.rows] == [f"{tmp_path.name}/a.png", "class/a.png"]


def test_what_is_not_known_comes_last_and_equal_rows_keep_their_order() -> None:
    def found(sort: str, descending: bool = False) -> str:
        return "".join(row.name for row in matching(rows, EVERYTHING, sort, descending))

    rows = [Row(Path(name), name, Path(name)) for name in "abcd"]
    for row, tokens in zip(rows, (5, None, 3, 5), strict=True):
        row.clip = row.t5 = tokens
    assert found("tokens") == "cadb"
    assert found("tokens", descending=True) == "adcb"
    rows[3].severity, rows[0].stars = "error", 2
    assert found("state") == "dabc"
    assert found("stars", descending=True) == "abcd"


def test_stars_are_written_to_the_sidecar_and_read_again(catalog: Catalog, tmp_path: Path) -> None:
    for name in ("a.png", "sub/b 2.png"):
        add(tmp_path, name)
    opened(catalog, tmp_path)
    catalog.rate(catalog.rows[0], 3)
    catalog.rate(catalog.rows[1], 9)
    assert [row.stars for row in catalog.rows] == [3, 5]
    wait_for(lambda: load_sidecar(tmp_path).stars("sub/b 2.png") == 5)
    (tmp_path / SIDECAR_NAME).write_text('version = 1\n[pictures."a.png"]\nstars = 1\n')
    catalog.refresh()
    wait_for(lambda: catalog.state == "ready")
    assert [row.stars for row in catalog.rows] == [1, 0]


def test_ratings_are_written_before_the_end(tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    catalog = opened(Catalog(), tmp_path)
    catalog.rate(catalog.rows[0], 4)
    catalog.close()
    assert load_sidecar(tmp_path).stars("a.png") == 4


def test_stars_go_to_the_dataset_that_they_were_given_in(catalog: Catalog, tmp_path: Path) -> None:
    add(tmp_path / "a", "a.png")
    add(tmp_path / "b", "b.png")
    row = opened(catalog, tmp_path / "a").rows[0]
    with catalog._condition:  # the thread comes to the rating when the other dataset is open
        catalog.rate(row, 5)
        catalog.open(dataset(tmp_path / "b"), None)
    wait_for(lambda: load_sidecar(tmp_path / "a").stars("a.png") == 5)
    wait_for(lambda: catalog.state == "ready")
    catalog.rate(row, 1)  # a screen that was a moment behind
    catalog.rate(catalog.rows[0], 2)
    wait_for(lambda: load_sidecar(tmp_path / "b").stars("b.png") == 2)
    assert list(load_sidecar(tmp_path / "b").pictures) == ["b.png"]
    assert load_sidecar(tmp_path / "a").stars("a.png") == 5


def test_one_folders_broken_sidecar_keeps_no_stars_from_the_others(catalog: Catalog, tmp_path: Path) -> None:
    for name in "abc":
        add(tmp_path / name, "x.png")
    opened(catalog, *(tmp_path / name for name in "abc"))
    (tmp_path / "a" / SIDECAR_NAME).write_text("stars everywhere")
    with catalog._condition:
        for row in catalog.rows:
            catalog.rate(row, 4)
    wait_for(lambda: catalog.failure is not None)
    assert [load_sidecar(tmp_path / name).stars("x.png") for name in "bc"] == [4, 4]
    assert [row.stars for row in catalog.rows] == [0, 4, 4]


def test_a_decoder_that_breaks_while_looking_is_told_and_tried_again(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_thread, "LOOK_S", 0.0)
    monkeypatch.setattr(catalog_thread, "MOST_S", 0.02)
    picture = add(tmp_path, "a.png")
    opened(catalog, tmp_path)
    thread = catalog._thread

    def looked(condition: Callable[[], bool]) -> bool:
        catalog.look()
        return condition()

    def broken(*_: object) -> Iterator[object]:
        raise DatasetError("The decoder does not start", "no memory", "Free some.")

    with monkeypatch.context() as ill:
        ill.setattr(Decoder, "probe_many", broken)
        picture.write_bytes(png(24, 8))
        wait_for(lambda: looked(lambda: catalog.state == "failed"))
        assert catalog.error is not None and "decoder" in catalog.error.title
    wait_for(lambda: looked(lambda: catalog.state == "ready"))
    assert catalog.rows[0].width == 24 and catalog._thread is thread


def test_a_sidecar_that_cannot_be_read_is_told_and_never_overwritten(catalog: Catalog, tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    (tmp_path / SIDECAR_NAME).write_text("stars everywhere")
    opened(catalog, tmp_path)
    assert [found.code for found in catalog.problems] == ["sidecar"]
    catalog.rate(catalog.rows[0], 2)
    wait_for(lambda: catalog.failure is not None)
    assert (tmp_path / SIDECAR_NAME).read_text() == "stars everywhere"
    wait_for(lambda: catalog.rows[0].stars == 0)


def test_tokens_are_counted_with_the_trigger_word(catalog: Catalog, tmp_path: Path) -> None:
    add(tmp_path, "a.png", "a red ball")
    add(tmp_path, "b.png", "zorple, a red ball")
    add(tmp_path, "c.png", None)
    model = ModelConfig.model_validate(pocket_model())
    catalog.open(dataset(tmp_path, captions={"trigger_word": "zorple"}), model)
    wait_for(lambda: catalog.state == "ready")
    first, second, third = catalog.rows
    assert first.t5 == second.t5 and first.clip == second.clip and (first.t5 or 0) > 4
    assert third.t5 is None and not catalog.tokenizer_problem
    before = first.t5
    add(tmp_path, "a.png", "a red ball in a very green garden")
    catalog.set_caption(first, "a red ball in a very green garden")
    assert first.caption == "a red ball in a very green garden"
    wait_for(lambda: first.t5 != before)
    assert catalog.measure(second, second.caption or "") is not None


def test_without_tokenizers_it_says_so(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(model: ModelConfig, download: bool = False) -> None:
        assert not download
        raise ModelFileError("No CLIP tokenizer", "nowhere", "")

    monkeypatch.setattr(catalog_load, "load_tokenizers", absent)
    add(tmp_path, "a.png")
    catalog.open(dataset(tmp_path), ModelConfig.model_validate(pocket_model()))
    wait_for(lambda: catalog.state == "ready")
    assert catalog.rows[0].t5 is None and catalog.tokenizer_problem == "No CLIP tokenizer: nowhere"
    assert catalog.measure(catalog.rows[0], "x") is None


def test_changes_on_disk_are_noticed_while_a_screen_looks(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_thread, "LOOK_S", 0.02)
    monkeypatch.setattr(catalog_thread, "MOST_S", 0.02)
    kept = add(tmp_path, "kept.png", "before")
    gone = add(tmp_path, "gone.png")
    opened(catalog, tmp_path)
    row = row_named(catalog, "kept.png")

    def noticed(what: str) -> bool:
        catalog.look()
        return what in " ".join(f"{row.name} {row.caption} {row.width}" for row in catalog.rows)

    add(tmp_path, "new/deep.png", "fresh")
    gone.unlink()
    wait_for(lambda: noticed("new/deep.png fresh 8"))
    assert [row.name for row in catalog.rows] == ["kept.png", "new/deep.png"]
    with open(kept.with_suffix(".txt"), "r+") as file:  # in place: no folder changes
        file.write("after it all")
    wait_for(lambda: noticed("kept.png after it all"))
    kept.write_bytes(png(24, 8))
    wait_for(lambda: noticed("kept.png after it all 24"))
    assert row_named(catalog, "kept.png") is row


def test_nothing_is_done_while_no_screen_looks(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_thread, "LOOK_S", 0.0)
    add(tmp_path, "a.png")
    opened(catalog, tmp_path)
    waits: list[float | None] = []
    slept = threading.Event()
    really = catalog._condition.wait

    def wait(timeout: float | None = None) -> bool:
        waits.append(timeout)
        slept.set()
        return really(timeout)

    monkeypatch.setattr(catalog._condition, "wait", wait)
    catalog.rate(catalog.rows[0], 1)
    assert slept.wait(30)
    assert waits == [None]


def test_the_same_dataset_opened_again_keeps_its_rows(catalog: Catalog, tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    opened(catalog, tmp_path)
    row = catalog.rows[0]
    opened(catalog, tmp_path)
    assert catalog.rows[0] is row
    other = tmp_path / "other"
    add(other, "b.png")
    opened(catalog, other)
    assert [row.name for row in catalog.rows] == ["b.png"]


def test_another_dataset_stops_the_reading_of_the_first(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_load, "CHUNK", 1)
    first, second = tmp_path / "first", tmp_path / "second"
    for number in range(50):
        add(first, f"{number}.png")
    add(second, "only.png")
    catalog.open(dataset(first), None)
    wait_for(lambda: bool(catalog.rows))
    opened(catalog, second)
    assert [row.name for row in catalog.rows] == ["only.png"]


def test_a_missing_folder_fails_with_words_and_an_empty_one_does_not(catalog: Catalog, tmp_path: Path) -> None:
    opened(catalog, tmp_path / "nowhere")
    assert catalog.state == "failed" and catalog.error is not None
    assert "does not exist" in catalog.error.title and "nowhere" in catalog.error.detail
    (tmp_path / "nowhere").mkdir()
    catalog.refresh()
    wait_for(lambda: catalog.state == "ready")
    assert catalog.rows == [] and catalog.error is None


def test_settings_that_allow_no_bucket_are_told_and_names_are_there(catalog: Catalog, tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    opened(catalog, tmp_path, resolution=64, buckets={"step": 512})
    assert catalog.state == "failed" and catalog.error is not None and "bucket" in catalog.error.title.lower()
    assert [row.name for row in catalog.rows] == ["a.png"]


def test_pictures_that_share_a_caption_are_told(catalog: Catalog, tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    (tmp_path / "a.jpg").write_bytes(b"x")
    add(tmp_path, "b.png")
    opened(catalog, tmp_path)
    assert [row.name for row in catalog.rows] == ["b.png"]
    assert [found.code for found in catalog.problems] == ["same-stem"]


def test_a_decoder_that_is_shared_stays_open(tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    with Decoder() as decoder:
        opened(Catalog(decoder), tmp_path).close()
        assert decoder.probe(tmp_path / "a.png").width == 8


def test_a_fault_in_the_thread_is_told_and_does_not_last(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(tmp_path, "a.png")
    faults: list[object] = []
    monkeypatch.setattr(threading, "excepthook", faults.append)
    with monkeypatch.context() as broken:
        broken.setattr(catalog_load, "each_pair", lambda *_: 1 / 0)
        opened(catalog, tmp_path)
        wait_for(lambda: bool(faults))
    assert catalog.state == "failed" and catalog.error is not None and "again" in catalog.error.hint
    catalog.refresh()
    wait_for(lambda: catalog.state == "ready")
    assert len(catalog.rows) == 1
