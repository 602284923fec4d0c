"""The notes beside the pictures are obeyed: exclusion, repeats, crops; by scan, report, buckets and latents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import OSC_52, encoded, gradient, picture_file, turned
from PIL import Image
from pocket import pocket_config

from engine.batches import Order
from engine.cache.latents import View, latent_key
from engine.config import BucketConfig, DatasetConfig, FolderConfig
from engine.dataset.buckets import place
from engine.dataset.check import check_dataset
from engine.dataset.crops import fits, trained_size, used_crop
from engine.dataset.decoder import Decoder
from engine.dataset.noted import excluded
from engine.dataset.scan import collect, scan_dataset, trained_pairs
from engine.dataset.sidecar import SIDECAR_NAME, Sidecar
from engine.errors import DatasetError
from engine.training.changes import compare, unexplained
from engine.training.record import load_record, look, save_record, take_record

BUCKETS = BucketConfig(min_side=32, max_side=128, step=16)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as shared:
        yield shared


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crops")


def config(folder: Path, **options: object) -> DatasetConfig:
    return DatasetConfig(folders=(FolderConfig(path=folder),), resolution=64, buckets=BUCKETS, **options)


def noted(folder: Path, **notes: dict[str, object]) -> None:
    """Write notes about the pictures ``<name>.png``."""
    sidecar = Sidecar()
    for name, own in notes.items():
        sidecar = sidecar.with_notes(f"{name}.png", **own)
    sidecar.save(folder)


def test_notes_are_obeyed(decoder: Decoder, tmp_path: Path) -> None:
    """Excluded, seen more often, cropped: the scan has it so, and everything that asks for sizes follows."""
    folder = tmp_path / "set"
    for name in "abc":
        picture_file(folder, f"{name}.png", width=128, height=64)
    noted(folder, a={"exclude": True}, b={"repeats": 5}, c={"crop": (32, 0, 64, 64)})
    scan = scan_dataset(config(folder), decoder)
    b, c = scan.samples
    assert (scan.excluded, scan.problems, [b.name, c.name]) == (1, (), ["b.png", "c.png"])
    assert (b.repeats, b.width, b.height, b.box) == (5, 128, 64, None)
    assert (c.repeats, c.width, c.height, c.box, c.picture_size) == (1, 64, 64, (32, 0, 64, 64), (128, 64))
    order = Order(scan.samples, pocket_config(tmp_path))
    assert {(i.view.sample.name, i.view.placement.bucket_w) for i in order.items()} == {("b.png", 80), ("c.png", 64)}
    report = check_dataset(config(folder))
    assert (report["summary"]["excluded"], report["summary"]["per_epoch"]) == (1, 6)
    assert [(i["width"], i["cropped_to"]) for i in report["images"]] == [(128, None), (128, [32, 0, 64, 64])]


def test_an_excluded_picture_may_be_broken(decoder: Decoder, tmp_path: Path) -> None:
    picture_file(tmp_path, "a.png")
    (tmp_path / "b.png").write_bytes(b"none")
    noted(tmp_path, b={"exclude": True})
    assert scan_dataset(config(tmp_path), decoder).errors == ()
    noted(tmp_path, a={"exclude": True})
    with pytest.raises(DatasetError, match="all 2 pictures of the dataset are excluded"):
        scan_dataset(config(tmp_path), decoder)
    assert [path.name for path in excluded(config(tmp_path))] == ["a.png", "b.png"]


def test_notes_that_cannot_be_read_keep_a_run_from_beginning(decoder: Decoder, tmp_path: Path) -> None:
    """What they exclude would be trained on."""
    picture_file(tmp_path, "a.png")
    (tmp_path / SIDECAR_NAME).write_text('version = 1\n[pictures."a.png"]\nexclude = "no"\n')
    (error,) = collect(config(tmp_path), decoder).errors
    assert error.code == "sidecar" and "line 3" in error.message and error.path.endswith(SIDECAR_NAME)


def test_a_crop_that_does_not_fit_is_told_and_not_used(decoder: Decoder, tmp_path: Path) -> None:
    picture_file(tmp_path, f"a{OSC_52}.png".replace("/", ""), width=64, height=48)
    (path,) = tmp_path.glob("*.png")
    Sidecar().with_notes(path.name, crop=(10, 0, 64, 48)).save(tmp_path)
    scan = scan_dataset(config(tmp_path), decoder)
    (warning,) = [problem for problem in scan.problems if problem.code == "crop"]
    assert "64x48 at 10,0" in warning.message and "\x1b" not in warning.path
    assert (scan.samples[0].width, scan.samples[0].height, scan.samples[0].box) == (64, 48, None)


@given(
    crop=st.tuples(st.integers(0, 90), st.integers(0, 90), st.integers(1, 90), st.integers(1, 90)),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_a_used_crop_is_a_real_part(crop: tuple[int, int, int, int], size: tuple[int, int]) -> None:
    used = used_crop(crop, *size)
    assert (used is None) == (not fits(crop, *size) or crop == (0, 0, *size))
    assert trained_size(crop, *size) == (used[2:] if used else size)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_cropped_picture_is_as_one_cropped_by_hand(decoder: Decoder, crops: Path, data: st.DataObject) -> None:
    """Bit by bit: turned by EXIF first, then cropped, then scaled."""
    orientation = data.draw(st.sampled_from([1, 3, 6, 8]))
    whole = gradient(120, 80)
    (crops / "whole.png").write_bytes(encoded(whole, "PNG", exif=turned(orientation)))
    upright = whole.rotate({1: 0, 3: 180, 6: 270, 8: 90}[orientation], expand=True)
    left, top = data.draw(st.integers(0, upright.width - 20)), data.draw(st.integers(0, upright.height - 20))
    wide = data.draw(st.integers(20, upright.width - left))
    high = data.draw(st.integers(20, upright.height - top))
    (crops / "hand.png").write_bytes(encoded(upright.crop((left, top, left + wide, top + high)), "PNG"))
    placement = place(wide, high, 64, BUCKETS)
    with_box = decoder.pixels(crops / "whole.png", placement, "white", False, 1, (left, top, wide, high))
    assert np.array_equal(with_box, decoder.pixels(crops / "hand.png", placement, "white", False))


def test_the_cache_knows_the_crop_and_a_replaced_picture_is_noticed(decoder: Decoder, tmp_path: Path) -> None:
    path = picture_file(tmp_path, "a.png", width=128, height=64)
    (plain,) = scan_dataset(config(tmp_path), decoder).samples
    boxes = ((0, 0, 64, 64), (8, 0, 64, 64), (64, 0, 64, 64))
    placement = place(64, 64, 64, BUCKETS)
    views = [View(replace(plain, width=64, height=64, crop=box), placement) for box in boxes]
    keys = {latent_key(view, config(tmp_path), "ae") for view in [*views, View(plain, placement)]}
    assert len(keys) == 4
    path.write_bytes(encoded(gradient(100, 64), "PNG"))
    with pytest.raises(DatasetError, match="changed since it was scanned"):
        decoder.pixels(path, placement, "white", False, 1, boxes[-1])


def test_a_jpeg_is_decoded_smaller_only_where_the_crop_stays_in_place(tmp_path: Path) -> None:
    from engine.cache.latents import _reduction

    Image.new("RGB", (1024, 1024)).save(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("x")
    with Decoder() as decoder:
        (sample,) = scan_dataset(config(tmp_path), decoder).samples
    for crop, expected in (
        ((0, 0, 512, 512), 4),
        ((4, 8, 512, 512), 4),
        ((2, 0, 512, 512), 2),
        ((1, 0, 512, 512), 1),
    ):
        view = View(replace(sample, width=512, height=512, crop=crop), place(512, 512, 64, BUCKETS))
        assert _reduction(view) == expected


def test_pairs_of_a_second_folder_obey_their_own_notes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        picture_file(tmp_path / folder, "a.png")
        picture_file(tmp_path / folder / "sub", "b.png")
    Sidecar().with_notes("sub/b.png", exclude=True).save(tmp_path / "one")
    Sidecar().with_notes("a.png", repeats=3).save(tmp_path / "two")
    folders = tuple(FolderConfig(path=tmp_path / name, repeats=2) for name in ("one", "two"))
    pairs = trained_pairs(DatasetConfig(folders=folders))
    assert [(str(p.path.relative_to(tmp_path)), p.repeats) for p in pairs] == [
        ("one/a.png", 2), ("two/a.png", 3), ("two/sub/b.png", 2),
    ]  # fmt: skip


def test_a_resume_tells_what_the_notes_changed(tmp_path: Path) -> None:
    """By name, and as what it is: excluded is not removed."""
    run = pocket_config(tmp_path)
    data = tmp_path / "data"
    Sidecar().with_notes("00.png", exclude=True).save(data)
    before = look(run, take_record(run, (), {}))
    assert before.excluded == ("1/00.png",) and len(before.pictures) == 4
    first, second, third = sorted(path.name for path in data.glob("*.png"))[1:4]
    sidecar = Sidecar().with_notes("00.png", exclude=None).with_notes(first, exclude=True)
    sidecar.with_notes(second, crop=(1, 2, 30, 40)).with_notes(third, repeats=4).save(data)
    now = look(run, before)
    assert [str(change) for change in compare(before, now)] == [
        f"pictures excluded: {first}",
        "pictures no longer excluded: 00.png",
        f"repeats of {third}: 1 -> 4",
        f"crop of {second}: unset -> 30x40 at 1,2",
    ]
    assert compare(now, now) == [] and unexplained(["pictures", "captions"], compare(before, now)) == []
    name = save_record(tmp_path / "records", now)
    assert load_record(tmp_path / "records", name) == now
