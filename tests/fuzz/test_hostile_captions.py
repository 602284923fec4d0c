"""Hostile captions are read as they are or refused with the reason; what is not edited keeps every byte."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import CaptionConfig, DatasetConfig, FolderConfig
from engine.config_file import save_config
from engine.dataset.breaks import PLAIN_ENDS, breaks_kept
from engine.dataset.captions import final_caption, read_caption
from engine.dataset.check import check_dataset
from engine.dataset.edits import open_caption, write_caption
from engine.dataset.query import haystack, query_of
from engine.dataset.query_parse import QueryError
from engine.dataset.sidecar import SIDECAR_NAME, load_sidecar
from engine.errors import DatasetError
from engine.text import safe_text
from tests.fuzz.corpus_captions import CAPTIONS, write_captions
from tests.pocket import pocket_config
from tests.reliability import figure
from tests.tui.watching import until
from tui.app import KilnApp
from tui.caption_desk import CaptionDesk, shown
from tui.catalog import Row
from tui.session import SessionState
from tui.settings import Settings
from tui.workplace import Workplace

ORDERS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
READ = [name for name, caption in CAPTIONS.items() if caption.text is not None]


def stamps(paths: dict[str, Path]) -> dict[str, tuple[bytes, int, int]]:
    """Bytes, inode and time of change of every file."""
    return {
        name: (path.read_bytes(), os.stat(path).st_ino, os.stat(path).st_mtime_ns) for name, path in paths.items()
    }


@pytest.mark.parametrize("name", CAPTIONS)
def test_a_caption_becomes_what_it_must(tmp_path: Path, name: str) -> None:
    caption = CAPTIONS[name]
    path = tmp_path / "a.txt"
    path.write_bytes(caption.data)
    if caption.text is None:
        for read in (read_caption, open_caption):
            with pytest.raises(DatasetError) as caught:
                read(path)
            said = f"{caught.value.title}: {caught.value.detail}"
            assert caption.reason in said and caught.value.hint and not ORDERS.search(said)
        return
    assert read_caption(path) == caption.text
    assert shown(open_caption(path).text).strip() == "\n".join(caption.text.splitlines()).strip()


@pytest.mark.parametrize("name", READ)
def test_only_what_is_edited_changes(tmp_path: Path, name: str) -> None:
    """Opened and handed back: not a byte. A letter at the end or in front: that letter and nothing else."""
    data = CAPTIONS[name].data
    row = Row(tmp_path / "a.png", "a.png", tmp_path / "a.txt")
    for edited in ("{}§", "§{}"):
        row.caption_path.write_bytes(data)
        before = stamps({"a": row.caption_path})
        desk = CaptionDesk(SessionState())
        try:
            sheet = desk.open(row)
            desk.edit(sheet, sheet.text)
            desk.settle()
            assert stamps({"a": row.caption_path}) == before
            if len(data) > 64_000:
                continue  # there is no room for more
            desk.edit(sheet, edited.replace("{}", sheet.text))
            desk.settle()
            assert sheet.problem is None and not sheet.dirty
        finally:
            desk.close()
        after = row.caption_path.read_bytes()
        encoding = open_caption(row.caption_path).encoding
        removed = after.replace("§".encode(encoding), b"", 1)
        # An empty caption gets a last line feed with its first word.
        assert removed == data or (not data.strip(b"\xef\xbb\xbf\xff\xfe") and removed.rstrip(b"\n\0") == data), after


def test_a_dataset_of_them_is_checked_to_its_end(tmp_path: Path) -> None:
    """Each is trained on as read or among the problems."""
    paths = write_captions(tmp_path)
    before = stamps(paths)
    report = check_dataset(DatasetConfig(folders=(FolderConfig(path=tmp_path),), resolution=64))
    texts = {image["caption_path"]: image["caption"] for image in report["images"]}
    assert texts == {str(paths[name]): CAPTIONS[name].text for name in READ}
    told = {found["path"]: found["message"] for found in report["problems"] if found["code"] == "caption"}
    assert set(told) == {safe_text(path) for name, path in paths.items() if name not in READ}
    assert not any(ORDERS.search(found["message"] + found["path"]) for found in report["problems"])
    assert stamps(paths) == before
    kinds = f"{len(READ)} read, {len(CAPTIONS) - len(READ)} refused with the reason"
    figure("captions", "hostile captions that became what they must", f"{len(CAPTIONS)} of {len(CAPTIONS)}: {kinds}")


@pytest.mark.crash
async def test_looking_at_them_in_the_editor_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through all captions, into the editor and out again, on a small screen."""
    monkeypatch.chdir(tmp_path)
    paths = write_captions(tmp_path / "texts")
    before = stamps(paths)
    folder = {"folders": [{"path": str(tmp_path / "texts")}]}
    save_config(pocket_config(tmp_path, dataset=folder), tmp_path / "run.toml")
    place = Workplace(tmp_path, Settings())
    app = KilnApp(place)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: place.catalog.state == "ready" and len(place.catalog.rows) == len(CAPTIONS))
        await pilot.press("g", "enter")
        for _ in CAPTIONS:
            await pilot.press("alt+down")
            for strip in app.screen._compositor.render_strips():
                assert not ORDERS.search(strip.text), ascii(strip.text)
        await pilot.press("escape", "escape")
    assert app.crash == "" and app.return_value is None
    assert stamps(paths) == before


LINES = st.lists(st.text("ab é\u200d", max_size=4), min_size=1, max_size=6)
BREAKS = st.sampled_from(["\n", "\r\n", "\r", "\u2028", "\x85", "\u2029"])


@settings(max_examples=300, deadline=None)
@given(LINES, st.lists(BREAKS, min_size=6, max_size=6), LINES)
def test_breaks_stay_where_lines_stay(old: list[str], ends: list[str], new: list[str]) -> None:
    """The result reads as what was edited; unedited it is the original; shared lines keep their breaks."""
    original = "".join(line + end for line, end in zip(old, ends, strict=False))[: -len(ends[len(old) - 1])]
    as_shown = shown(original)
    assert breaks_kept(original, as_shown) == original
    edited = "\n".join(new)
    assert shown(breaks_kept(original, edited)) == edited
    plain = PLAIN_ENDS.sub("\n", original)
    assert breaks_kept(original, plain, PLAIN_ENDS) == original
    front = breaks_kept(original, f"new\n{as_shown}")
    assert front == f"new\n{original}" or shown(front) == f"new\n{as_shown}"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.lists(st.sampled_from(
    [b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b"\r\n", b"a", b"\xc3\xa9", b"\0", b"\xe2\x80\xa8", b" "]
), max_size=12).map(b"".join))  # fmt: skip
def test_any_bytes_are_a_caption_or_a_reason(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """The reader raises its own error and no other; what it takes is written back to the byte."""
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(data)
    try:
        text = read_caption(path)
    except DatasetError as err:
        assert not ORDERS.search(str(err))
        with pytest.raises(DatasetError):
            open_caption(path)
        return
    base = open_caption(path)
    assert base.text.strip() == text
    assert write_caption(base, base.text) == base and path.read_bytes() == data
    longer = write_caption(base, f"{base.text}x")
    assert longer == open_caption(path) and write_caption(longer, base.text).text == base.text
    assert path.read_bytes() == data or not base.text


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(), max_size=60), st.booleans(), st.booleans(), st.booleans())
def test_any_text_can_be_trained_on(text: str, shuffle: bool, wildcards: bool, dropped: bool) -> None:
    """The text of a step is one line, the same for the same draw, whatever the caption holds."""
    config = CaptionConfig(
        shuffle=shuffle, wildcards=wildcards, tag_dropout=0.5 if dropped else 0.0, trigger_word="zok"
    )
    trained = final_caption(text, config, 1, 2, 3)
    assert len(trained.splitlines()) <= 1 and trained == final_caption(text, config, 1, 2, 3)
    assert re.search(r"(?<!\w)zok(?!\w)", trained, re.IGNORECASE)


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(), max_size=40) | st.text('-" aA\u0301é', max_size=20),
    st.text(st.characters(), max_size=40),
)
def test_any_text_is_a_query(query: str, caption: str) -> None:
    """What is typed is a filter or an error; a caption's own words find it, and leave it out with a dash."""
    row = Row(Path("a.png"), "a.png", Path("a.txt"), caption, haystack=haystack("a.png", caption))
    try:
        query_of(query).matches(row)
    except QueryError as err:
        assert 1 <= err.column <= len(query) and err.said.isprintable()
    for word in caption.split():
        quoted = '"' + re.sub(r'([*?"\\])', r"\\\1", word) + '"'
        assert query_of(quoted).matches(row) and not query_of(f"-{quoted}").matches(row)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=120)
    | st.text('[]=".\n\\ u{}#pictures0 stars version1', max_size=80).map(str.encode)
    | st.integers(0, 400).map(lambda depth: b"version = 1\npictures = " + b"{a=" * depth + b"1" + b"}" * depth)
)
def test_any_bytes_are_a_sidecar_or_a_reason(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / SIDECAR_NAME).write_bytes(data)
    try:
        load_sidecar(folder)
    except DatasetError as err:
        assert err.hint and not ORDERS.search(str(err))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(st.characters(), min_size=1, max_size=20), st.integers(-3, 9), max_size=5))
def test_any_name_keeps_its_stars(tmp_path_factory: pytest.TempPathFactory, ratings: dict[str, int]) -> None:
    """A name that is text comes back with its stars; one that is none is refused, and nothing is written of it."""
    folder = tmp_path_factory.mktemp("rated")
    for name, stars in ratings.items():
        try:
            name.encode()
        except UnicodeEncodeError:
            with pytest.raises(DatasetError):
                load_sidecar(folder).with_stars(name, stars)
            continue
        load_sidecar(folder).with_stars(name, stars).save(folder)
        assert load_sidecar(folder).stars(name) == max(0, min(stars, 5))
