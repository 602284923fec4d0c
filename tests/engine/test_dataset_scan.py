"""Scanning: folders as people have them, hostile trees and names, and every problem said once."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import ACCEPTED, OSC_52, REFUSED, P, encoded, gradient, picture_file

from engine.config import BucketConfig, CaptionConfig, DatasetConfig, FolderConfig
from engine.dataset.decoder import Decoder
from engine.dataset.scan import Scan, collect, file_digest, scan_dataset
from engine.dataset.walk import natural_key
from engine.errors import DatasetError


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as shared:
        yield shared


def config(*folders: Path, repeats: int = 0, captions: CaptionConfig | None = None, **options: Any) -> DatasetConfig:
    return DatasetConfig(
        folders=tuple(FolderConfig(path=folder, repeats=repeats) for folder in folders),
        captions=captions or CaptionConfig(),
        **options,
    )


def found(scan: Scan) -> list[tuple[str, str, str]]:
    """(severity, code, base name) of every problem."""
    return sorted((p.severity, p.code, os.path.basename(p.path)) for p in scan.problems)


def names(scan: Scan) -> list[str]:
    return [sample.name for sample in scan.samples]


def test_flat_folder(decoder: Decoder, tmp_path: Path) -> None:
    """Natural order, whole captions, sizes, one repeat, no problem."""
    for number in (10, 2, 1):
        picture_file(tmp_path, f"img{number}.png", caption=f"picture {number}\nsecond line")
    scan = scan_dataset(config(tmp_path), decoder)
    assert names(scan) == ["img1.png", "img2.png", "img10.png"]
    sample = scan.samples[2]
    assert (sample.index, sample.width, sample.height, sample.repeats, sample.format) == (2, 64, 48, 1, "PNG")
    assert sample.caption == "picture 10\nsecond line" and sample.caption_path == tmp_path / "img10.txt"
    assert scan.problems == ()
    scan.require_clean()


def test_nested_and_kohya_folders(decoder: Decoder, tmp_path: Path) -> None:
    """Repeats from the names of the folder and its children; the settings win over names."""
    root = tmp_path / "3_all"
    picture_file(root)
    picture_file(root / "10_zok cat" / "deeper", "b.png")
    picture_file(root / "other" / "7_not a repeat", "c.png")
    scan = scan_dataset(config(root), decoder)
    assert {sample.path.name: sample.repeats for sample in scan.samples} == {"a.png": 3, "b.png": 10, "c.png": 3}
    assert names(scan) == ["10_zok cat/deeper/b.png", "a.png", "other/7_not a repeat/c.png"]
    assert {sample.repeats for sample in scan_dataset(config(root, repeats=2), decoder).samples} == {2}
    flat = DatasetConfig(folders=(FolderConfig(path=root, recursive=False),))
    assert names(scan_dataset(flat, decoder)) == ["a.png"]


def test_names_that_look_like_repeats_are_questioned(decoder: Decoder, tmp_path: Path) -> None:
    """A year would train each picture two thousand times; nought leaves them out."""
    picture_file(tmp_path / "2024_holiday")
    picture_file(tmp_path / "0_old")
    scan = scan_dataset(config(tmp_path), decoder)
    assert found(scan) == [("warning", "many-repeats", "2024_holiday"), ("warning", "zero-repeats", "0_old")]
    assert names(scan) == ["2024_holiday/a.png"]


def test_caption_extensions_in_order(decoder: Decoder, tmp_path: Path) -> None:
    """The first extension that exists wins, in capitals too."""
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(P)
    for name in ("a.txt", "a.caption", "b.caption", "c.TXT"):
        (tmp_path / name).write_text(name)
    assert [s.caption for s in scan_dataset(config(tmp_path), decoder).samples] == ["a.txt", "b.caption", "c.TXT"]
    other = CaptionConfig(extensions=("caption", ".txt"))
    texts = [s.caption for s in scan_dataset(config(tmp_path, captions=other), decoder).samples]
    assert texts == ["a.caption", "b.caption", "c.TXT"]


def test_accents_from_macos_match(decoder: Decoder, tmp_path: Path) -> None:
    """A name in two spellings of Unicode is one name, unless both are there."""
    (tmp_path / "cafe\u0301.png").write_bytes(P)
    (tmp_path / "caf\u00e9.txt").write_text("a café")
    assert scan_dataset(config(tmp_path), decoder).samples[0].caption == "a café"
    (tmp_path / "caf\u00e9.png").write_bytes(P)
    scan = collect(config(tmp_path), decoder)
    assert [s.caption for s in scan.samples] == ["a café"]
    assert [code for _, code, _ in found(scan)] == ["no-caption", "alike-names"]


def test_no_dataset(decoder: Decoder, tmp_path: Path) -> None:
    """No folder, a file for a folder, an empty folder, one without pictures."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(DatasetError, match="does not exist"):
        scan_dataset(config(tmp_path / "gone"), decoder)
    with pytest.raises(DatasetError, match="is not a folder"):
        scan_dataset(config(tmp_path / "file"), decoder)
    with pytest.raises(DatasetError, match="has no pictures") as caught:
        scan_dataset(config(tmp_path), decoder)
    assert str(tmp_path) in caught.value.detail and caught.value.hint


def test_no_captions(decoder: Decoder, tmp_path: Path) -> None:
    """Refused with what to do; a trigger word or a setting makes the pictures trainable."""
    picture_file(tmp_path, caption=None)
    with pytest.raises(DatasetError, match="No picture has a caption") as caught:
        scan_dataset(config(tmp_path), decoder)
    assert "trigger word" in caught.value.hint and "a.png" in caught.value.detail
    for wider in (config(tmp_path, captions=CaptionConfig(trigger_word="zok")), None):
        scan = scan_dataset(wider or config(tmp_path, allow_missing_captions=True), decoder)
        assert scan.samples[0].caption == "" and scan.samples[0].caption_path is None
        assert found(scan) == [("warning", "no-caption", "a.png")]


def test_one_missing_caption_keeps_only_that_picture_out(decoder: Decoder, tmp_path: Path) -> None:
    """It is an error that names the picture; require_clean() refuses."""
    picture_file(tmp_path, "a.png")
    picture_file(tmp_path, "b.png", caption=None)
    scan = scan_dataset(config(tmp_path), decoder)
    assert names(scan) == ["a.png"] and found(scan) == [("error", "no-caption", "b.png")]
    with pytest.raises(DatasetError, match="1 error"):
        scan.require_clean()


def test_two_pictures_with_one_stem(decoder: Decoder, tmp_path: Path) -> None:
    """Both are named and neither is used: they would share a caption. Capitals make another stem."""
    picture_file(tmp_path, "a.png")
    picture_file(tmp_path, "a.jpg")
    picture_file(tmp_path, "A.PNG")
    scan = scan_dataset(config(tmp_path), decoder)
    assert names(scan) == ["A.PNG"]
    (problem,) = scan.errors
    assert problem.code == "same-stem" and "a.jpg and a.png" in problem.message


def test_caption_problems(decoder: Decoder, tmp_path: Path) -> None:
    """Empty, in another encoding, without a picture, named after the whole file name."""
    picture_file(tmp_path, "empty.png", caption="")
    picture_file(tmp_path, "latin.png", caption=None)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    picture_file(tmp_path, "long.png", caption=None)
    (tmp_path / "long.png.txt").write_text("named wrongly")
    (tmp_path / "orphan.txt").write_text("nobody's")
    scan = scan_dataset(config(tmp_path), decoder)
    assert found(scan) == [
        ("error", "caption", "latin.txt"), ("error", "no-caption", "long.png"),
        ("warning", "empty-caption", "empty.txt"), ("warning", "orphan-caption", "long.png.txt"),
        ("warning", "orphan-caption", "orphan.txt"),
    ]  # fmt: skip
    assert "Rename it to long.txt." in {problem.hint for problem in scan.problems}


def test_broken_pictures_are_problems(decoder: Decoder, tmp_path: Path) -> None:
    """What a header shows is found here; the good picture is used, the messages do not repeat the path."""
    picture_file(tmp_path, "good.png")
    for name in ("zero.png", "soi.jpg", "bomb.png", "float.tif", "html.jpg"):
        (tmp_path / name).write_bytes(REFUSED[name]())
        (tmp_path / name).with_suffix(".txt").write_text("x")
    scan = scan_dataset(config(tmp_path), decoder)
    assert names(scan) == ["good.png"]
    assert {code for _, code, _ in found(scan)} == {"picture"} and len(scan.errors) == 5
    assert not any(str(tmp_path) in problem.message for problem in scan.problems)


def test_too_small_for_any_bucket(decoder: Decoder, tmp_path: Path) -> None:
    """Without enlarging, a picture below one step is left out and named."""
    picture_file(tmp_path, "tiny.png", width=40, height=40)
    picture_file(tmp_path, "fine.png", width=128, height=128)
    scan = scan_dataset(config(tmp_path, buckets=BucketConfig(no_upscale=True)), decoder)
    assert names(scan) == ["fine.png"] and found(scan) == [("error", "bucket", "tiny.png")]


def test_other_files(decoder: Decoder, tmp_path: Path) -> None:
    """Kinds that people take for pictures are a warning; dotfiles and everything else are nobody's business."""
    picture_file(tmp_path)
    for name in ("b.gif", "c.heic", "d.SVG", "e.psd", ".hidden.png", "notes.md", "cache.npz", "a.json"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.png").write_bytes(P)
    scan = scan_dataset(config(tmp_path), decoder)
    assert [name for _, code, name in found(scan) if code == "unsupported"] == ["b.gif", "c.heic", "d.SVG", "e.psd"]
    assert len(scan.problems) == 4 and names(scan) == ["a.png"]


def test_links_loops_and_depth(decoder: Decoder, tmp_path: Path) -> None:
    """Links to itself end, links out are not followed, links inside are; deep trees are cut with a warning."""
    root = tmp_path / "set"
    picture_file(root)
    outside = picture_file(tmp_path / "outside", "secret.png")
    (root / "loop1").symlink_to(root)
    (root / "loop2").symlink_to(".")
    (root / "etc").symlink_to("/etc")
    (root / "out.png").symlink_to(outside)
    (root / "gone.png").symlink_to(root / "nothing.png")
    (root / "b.png").symlink_to("a.png")
    (root / "b.txt").write_text("the same picture again")
    picture_file(root / Path(*"0123456789abcdefg"), "deep.png")
    scan = scan_dataset(config(root), decoder)
    assert names(scan) == ["a.png", "b.png"]
    assert found(scan) == [
        ("warning", "broken-link", "gone.png"), ("warning", "link-outside", "etc"),
        ("warning", "link-outside", "out.png"), ("warning", "too-deep", "f"),
    ]  # fmt: skip


def test_things_that_are_not_files(decoder: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe, a socket and a folder with names of pictures; hard links are two pictures."""
    picture_file(tmp_path)
    os.link(tmp_path / "a.png", tmp_path / "b.png")
    (tmp_path / "b.txt").write_text("hard link")
    os.mkfifo(tmp_path / "f.png")
    os.mkfifo(tmp_path / "a2.txt")
    (tmp_path / "d.png").mkdir()
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.png")
        scan = scan_dataset(config(tmp_path), decoder)
    assert names(scan) == ["a.png", "b.png"]
    assert [name for _, code, name in found(scan) if code == "not-regular"] == ["a2.txt", "f.png", "s.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files(decoder: Decoder, tmp_path: Path) -> None:
    """Forbidden files are problems with the system's reason."""
    picture_file(tmp_path)
    picture_file(tmp_path, "b.png").chmod(0)
    assert found(scan_dataset(config(tmp_path), decoder)) == [("error", "picture", "b.png")]


def test_hostile_names(decoder: Decoder, tmp_path: Path) -> None:
    """Every name is trainable and keeps its identity; what is shown holds nothing a terminal or markup acts on."""
    hostile = [
        b"\xff\xfe", OSC_52.replace("/", "_").encode(), b"\x1b]0;t\x07", "\x9b2J".encode(), b"a\nb", b"x" * 251,
        b"[_b]", b"[@click=app.quit]x", b"photo [edit]", "\u202egpj".encode(), b"-rf", b" ", b"con", b"tab\there",
    ]  # fmt: skip
    folder = os.fsencode(tmp_path)
    for stem in hostile:
        Path(os.fsdecode(folder + b"/" + stem + b".png")).write_bytes(P)
        Path(os.fsdecode(folder + b"/" + stem + b".txt")).write_text("a picture")
    Path(os.fsdecode(folder + b"/\x1b[2J.gif")).write_bytes(b"x")
    scan = scan_dataset(config(tmp_path), decoder)
    assert {os.fsencode(s.path.name) for s in scan.samples} == {stem + b".png" for stem in hostile}
    assert all(s.caption == "a picture" and s.content_hash for s in scan.samples)
    shown = names(scan) + [text for p in scan.problems for text in (p.path, p.message, p.hint)]
    for text in shown:
        text.encode()
        assert not any(char < " " or "\x7f" <= char <= "\x9f" or char == "\u202e" for char in text), ascii(text)


def test_hostile_errors_are_safe_to_show(decoder: Decoder, tmp_path: Path) -> None:
    """The summary of a dataset of which nothing can be used holds no escape byte."""
    (tmp_path / "\x1b[2J\udcff.png").write_bytes(b"")
    with pytest.raises(DatasetError) as caught:
        scan_dataset(config(tmp_path), decoder)
    assert "\x1b" not in str(caught.value) and str(caught.value).encode()


def test_regularization(decoder: Decoder, tmp_path: Path) -> None:
    """Marked samples; a trigger word does not excuse their missing captions; they alone are nothing to train on."""
    picture_file(tmp_path / "concept", caption=None)
    picture_file(tmp_path / "class", "r.png", caption=None)
    folders = (
        FolderConfig(path=tmp_path / "concept"),
        FolderConfig(path=tmp_path / "class", regularization=True),
    )
    settings = DatasetConfig(folders=folders, captions=CaptionConfig(trigger_word="zok"))
    assert found(scan_dataset(settings, decoder))[0] == ("error", "no-caption", "r.png")
    settings = DatasetConfig(folders=folders, allow_missing_captions=True)
    assert [s.regularization for s in scan_dataset(settings, decoder).samples] == [False, True]
    with pytest.raises(DatasetError, match="marked as regularization"):
        scan_dataset(DatasetConfig(folders=folders[1:], allow_missing_captions=True), decoder)


def test_a_folder_listed_twice_counts_once(decoder: Decoder, tmp_path: Path) -> None:
    """Also when one lies in the other."""
    picture_file(tmp_path)
    picture_file(tmp_path / "sub", "b.png")
    scan = scan_dataset(config(tmp_path, tmp_path / "sub", tmp_path), decoder)
    assert names(scan) == ["a.png", "sub/b.png"]
    assert [code for _, code, _ in found(scan)] == ["listed-twice", "listed-twice"]


def test_warnings_of_the_decoder_arrive(decoder: Decoder, tmp_path: Path) -> None:
    """An animation is used by its first frame, and said so."""
    more = {"save_all": True, "append_images": [gradient(), gradient().rotate(90)]}
    (tmp_path / "a.webp").write_bytes(encoded(gradient(), "WEBP", **more))
    (tmp_path / "a.txt").write_text("x")
    assert found(scan_dataset(config(tmp_path), decoder)) == [("warning", "animated", "a.webp")]


def test_relative_folders(decoder: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder itself, and one below it."""
    picture_file(tmp_path / "5_set" / "sub")
    monkeypatch.chdir(tmp_path / "5_set")
    (sample,) = scan_dataset(config(Path(".")), decoder).samples
    assert (sample.name, sample.repeats) == ("sub/a.png", 5)
    monkeypatch.chdir(tmp_path)
    (sample,) = scan_dataset(config(Path("5_set")), decoder).samples
    assert (sample.name, sample.repeats) == ("sub/a.png", 5)


def test_progress_counts_pictures(decoder: Decoder, tmp_path: Path) -> None:
    """One call a picture, up to the total."""
    for number in range(3):
        picture_file(tmp_path, f"{number}.png")
    calls: list[tuple[int, int]] = []
    scan_dataset(config(tmp_path), decoder, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_digests_follow_the_bytes(tmp_path: Path) -> None:
    """An edit that keeps size and modification time is seen."""
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    before = os.stat(path)
    assert file_digest(path) == hashlib.sha256(b"one").hexdigest() == file_digest(path)
    time.sleep(0.02)  # the file system's clock ticks every few milliseconds
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file_digest(path) == hashlib.sha256(b"two").hexdigest()
    with pytest.raises(DatasetError, match=r"gone\.png"):
        file_digest(tmp_path / "gone.png")


@given(st.lists(st.text(alphabet="ab019/ ._", max_size=8), max_size=12))
def test_natural_order_is_total(paths: list[str]) -> None:
    """Any names compare, equal keys mean equal names, numbers count by value."""
    ordered = sorted(paths, key=natural_key)
    assert sorted(reversed(paths), key=natural_key) == ordered
    assert len(set(map(natural_key, paths))) == len(set(paths))
    assert natural_key("a9") < natural_key("a10")


def test_scan_agrees_with_every_odd_picture(decoder: Decoder, tmp_path: Path) -> None:
    """Nothing that decodes is refused by the scan."""
    for name, data in ACCEPTED.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_bytes(data())
    scan = collect(config(tmp_path, allow_missing_captions=True), decoder)
    assert not scan.errors and len(scan.samples) == len(ACCEPTED)
