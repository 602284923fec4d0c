"""The sidecar file: stars by picture, read strictly, merged with what others wrote, ignored by the scan."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pocket import pictures
from pydantic import ValidationError

from engine.config import DatasetConfig
from engine.dataset.decoder import Decoder
from engine.dataset.scan import scan_dataset
from engine.dataset.sidecar import MAX_SIDECAR_BYTES, SIDECAR_NAME, PictureNotes, Sidecar, load_sidecar, place_of
from engine.errors import DatasetError, DiskError

ODD = 'sub/a "b" \\ [x].png'


def test_stars_are_kept_and_zero_removes_them(tmp_path: Path) -> None:
    notes = Sidecar().with_stars(ODD, 3).with_stars("b.png", 9).with_stars("c.png", 1)
    assert (notes.stars(ODD), notes.stars("b.png"), notes.stars("absent.png")) == (3, 5, 0)
    assert notes.save(tmp_path) == load_sidecar(tmp_path)
    fewer = load_sidecar(tmp_path).with_stars("b.png", 0).with_stars("c.png", -4)
    assert fewer.stars("b.png") == 0
    fewer.save(tmp_path)
    table = tomllib.loads((tmp_path / SIDECAR_NAME).read_text())
    assert table == {"version": 1, "pictures": {ODD: {"stars": 3}}}


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=20), st.integers(1, 5), max_size=8))
def test_every_name_comes_back(tmp_path_factory: pytest.TempPathFactory, stars: dict[str, int]) -> None:
    folder = tmp_path_factory.mktemp("sidecar")
    notes = Sidecar()
    for name, count in stars.items():
        notes = notes.with_stars(name, count)
    notes.save(folder)
    back = load_sidecar(folder)
    assert {name: back.stars(name) for name in back.pictures} == stars


def test_saving_keeps_what_others_wrote_meanwhile(tmp_path: Path) -> None:
    Sidecar().with_stars("a.png", 1).with_stars("b.png", 1).save(tmp_path)
    first, second = load_sidecar(tmp_path), load_sidecar(tmp_path)
    first.with_stars("a.png", 5).save(tmp_path)
    merged = second.with_stars("b.png", 4).save(tmp_path)
    assert (merged.stars("a.png"), merged.stars("b.png")) == (5, 4) and merged == load_sidecar(tmp_path)


def test_every_note_comes_back_and_none_takes_it_away(tmp_path: Path) -> None:
    notes = Sidecar().with_notes("a.png", exclude=True, repeats=3, crop=(120, 40, 800, 1000), stars=2)
    assert notes.save(tmp_path) == load_sidecar(tmp_path)
    table = tomllib.loads((tmp_path / SIDECAR_NAME).read_text())
    assert table["pictures"]["a.png"] == {"stars": 2, "exclude": True, "repeats": 3, "crop": [120, 40, 800, 1000]}
    load_sidecar(tmp_path).with_notes("a.png", exclude=None, repeats=None, crop=None).save(tmp_path)
    assert load_sidecar(tmp_path).of("a.png") == PictureNotes(stars=2)


def test_two_notes_of_one_picture_by_two_writers_are_both_kept(tmp_path: Path) -> None:
    first, second = load_sidecar(tmp_path), load_sidecar(tmp_path)
    first.with_notes("a.png", exclude=True).save(tmp_path)
    assert second.with_stars("a.png", 4).save(tmp_path).of("a.png") == PictureNotes(stars=4, exclude=True)


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"crop": (0, 0, 0, 5)}, {"crop": (1, 2, 3)}, {"stars": 6}])
def test_a_note_that_no_picture_can_have_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Sidecar().with_notes("a.png", **wrong)


def test_nothing_changed_writes_nothing(tmp_path: Path) -> None:
    assert load_sidecar(tmp_path).save(tmp_path) == Sidecar()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stars", "line 1"),
        ("version = 2", "version is 2"),
        ("[pictures]", "version is missing"),
        ('version = 1\n[pictures."a"]\nstras = 3', "line 3: pictures.a.stras is not a known key; did you mean"),
        ('version = 1\n[pictures."a"]\nstars = 6', "line 3: pictures.a.stars is 6"),
        ('version = 1\n[pictures."a"]\nstars = "3"', "line 3"),
        ("version = 1\npicture = 1", "line 2: picture is not a known key"),
        ("version = 1\na = " + "[" * 2000 + "]" * 2000, "nested|levels"),
        ("version = 1\n" + "#" * MAX_SIDECAR_BYTES, "larger than 4 MB"),
        ('version = 1\n[pictures."a\x1b[2J"]\nstars = 3', "line 2"),
    ],
    ids=["no toml", "newer", "no version", "typo", "six", "text", "top", "deep", "huge", "escape"],
)
def test_what_is_wrong_is_told_with_its_line_and_left_alone(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / SIDECAR_NAME
    path.write_text(text)
    with pytest.raises(DatasetError, match="notes cannot be read") as caught:
        load_sidecar(tmp_path)
    assert any(part in caught.value.detail for part in told.split("|")), caught.value.detail
    assert "\x1b" not in caught.value.detail
    with pytest.raises(DatasetError):
        Sidecar().with_stars("a.png", 1).save(tmp_path)
    assert path.read_text() == text


def test_a_file_in_another_encoding_or_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / SIDECAR_NAME
    path.write_bytes(b"version = 1\n# caf\xe9\n")
    with pytest.raises(DatasetError) as caught:
        load_sidecar(tmp_path)
    assert "line 2" in caught.value.detail
    path.unlink()
    path.mkdir()
    with pytest.raises(DatasetError):
        load_sidecar(tmp_path)


def test_a_name_that_no_text_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="Nothing can be kept"):
        Sidecar().with_stars("\udcff.png", 3)


def test_a_failed_write_is_told(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DiskError):
        Sidecar().with_stars("a.png", 3).save(blocked / "below")


def test_the_place_of_a_picture(tmp_path: Path) -> None:
    assert place_of(tmp_path / "sub" / "a.png", tmp_path) == "sub/a.png"


def test_a_scan_passes_over_it(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "data", 2)
    config = DatasetConfig.model_validate({"folders": [{"path": folder}], "resolution": 64})
    with Decoder() as decoder:
        before = scan_dataset(config, decoder)
        Sidecar().with_stars("train-00.png", 3).save(folder)
        assert scan_dataset(config, decoder) == before
