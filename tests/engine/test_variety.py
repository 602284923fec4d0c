"""What a set always shows and never names, told by words; lists of tags, and the number of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import picture_file
from PIL import Image

from engine.config import DatasetConfig, FolderConfig
from engine.dataset.check import check_dataset
from engine.dataset.findings import grouped
from engine.dataset.problems import problem
from engine.dataset.sidecar import Sidecar
from engine.dataset.variety import Band, count_problems, is_tag_list, style_problems, variety_problems

HERE = Path("set")
BAND = Band("character", 8, 20, 60)


def codes(captions: list[str]) -> set[str]:
    return {found.code for found in variety_problems(captions, [], HERE)}


@pytest.mark.parametrize(
    ("caption", "tags"),
    [
        ("1girl, solo, red hair, outdoors, smile", True),
        ("zok, close-up, studio", False),
        ("A woman with red hair stands on a beach, smiling at the camera, in soft light, at dusk.", False),
        ("a photo of zok in a green coat, looking back over her shoulder, on a busy street, at night", False),
        ("", False),
    ],
)
def test_lists_of_tags_are_told_from_sentences(caption: str, tags: bool) -> None:
    assert is_tag_list(caption) is tags


def test_captions_of_the_other_kind_and_of_both() -> None:
    tag, prose = "cup, red, table, indoors", "A red cup on a table."
    assert [found.code for found in style_problems([tag] * 6 + [prose] * 2, HERE)] == ["tag-captions"]
    assert [found.code for found in style_problems([tag] * 3 + [prose] * 7, HERE)] == ["mixed-captions"]
    assert not list(style_problems([prose] * 9, HERE)) and not list(style_problems([tag], HERE))
    assert not [found for found in style_problems([tag] * 9, HERE, t5=False) if found.code == "tag-captions"]


def test_what_is_always_the_same_or_never_named() -> None:
    same = [f"close-up of zok in a red coat, number {number}" for number in range(9)]
    assert codes(same) == {"same-framing", "same-clothes", "unnamed-light", "unnamed-background"}
    varied = [
        "a portrait at sunset on the beach", "full body shot in a studio", "close-up under neon at night",
        "profile in daylight in a park", "wide shot of a street, overcast", "from below, lamp in a room",
        "headshot, window light", "over the shoulder, sunny field", "waist up, flash, plain background",
    ]  # fmt: skip
    assert codes(varied) == set() and codes(same[:5]) == set()
    assert "night" not in "".join(found.message for found in variety_problems(varied, [], HERE))


def test_the_number_of_pictures_against_a_recipe() -> None:
    few, many = list(count_problems(5, BAND, HERE)), list(count_problems(99, BAND, HERE))
    assert few[0].severity == "warning" and "8 to 60" in few[0].message and many[0].severity == "note"
    assert not list(count_problems(20, BAND, HERE))


def test_findings_are_grouped_the_worst_first() -> None:
    told = [
        problem("a", "apart", "note", "far"), problem("b", "blurred", "warning", "soft", "Replace it.", "exclude"),
        problem("c", "blurred", "warning", "softer", "Replace it.", "exclude"),
        problem("d", "odd", "error", "An odd one"),
    ]  # fmt: skip
    errors, blurred, notes = grouped(told)
    assert (errors.title, blurred.title, notes.code) == ("An odd one", "Blurred against the rest of the set", "apart")
    assert blurred.fix == "exclude" and blurred.hints == ("Replace it.",) and len(blurred.problems) == 2


def test_a_check_takes_notes_cache_and_held_out_pictures_into_account(tmp_path: Path) -> None:
    """One picture is also held out; a copy that is left out is no copy; the second check decodes nothing."""
    for number in range(3):
        path = picture_file(tmp_path / "set" / "a", f"{number}.png")
        cells = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(cells).resize((64, 64)).save(path)
    copy = picture_file(tmp_path / "set" / "b", "copy.png")
    copy.write_bytes((tmp_path / "set" / "a" / "0.png").read_bytes())
    held = picture_file(tmp_path / "held", "h.png", None)
    Image.open(tmp_path / "set" / "a" / "1.png").resize((128, 128)).save(held)
    config = DatasetConfig(folders=(FolderConfig(path=tmp_path / "set"),), resolution=64)
    options = {"held_out": tmp_path / "held", "cache": tmp_path / "cache", "band": BAND}
    told = check_dataset(config, **options)
    found = {each["code"]: each for each in told["problems"]}
    assert found.keys() == {"copy", "held-out-copy", "few-pictures"} and found["copy"]["path"] == str(copy)
    assert found["held-out-copy"]["path"].endswith("1.png") and found["copy"]["fix"] == "exclude"
    assert [(part["name"], part["pictures"], part["suggested"]) for part in told["balance"]] == [
        ("a", 3, 1),
        ("b", 1, 3),
    ]
    Sidecar().with_notes("b/copy.png", exclude=True).save(tmp_path / "set")
    marks = [path.stat().st_mtime_ns for path in (tmp_path / "cache" / "quality").iterdir()]
    again = check_dataset(config, **options)
    assert {each["code"] for each in again["problems"]} == {"held-out-copy", "few-pictures"}
    assert (
        marks == [path.stat().st_mtime_ns for path in (tmp_path / "cache" / "quality").iterdir()] and len(marks) == 2
    )
