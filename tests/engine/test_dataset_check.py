"""The report: everything about every picture, and what only decoding or counting shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pictures import REFUSED, encoded, gradient, picture_file

from engine.config import BucketConfig, CaptionConfig, DatasetConfig, FolderConfig
from engine.dataset.check import check_dataset
from engine.dataset.tokens import TokenCount, count_tokens


class Words:
    """Counts words, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def count(self, text: str) -> int:
        """Words and two special tokens."""
        self.asked += 1
        return len(text.split()) + 2


def settings(folder: Path, **options: Any) -> DatasetConfig:
    return DatasetConfig(**{"folders": (FolderConfig(path=folder),), "resolution": 64, **options})


def codes(report: dict[str, Any]) -> list[str]:
    return sorted(found["code"] for found in report["problems"])


def test_report_of_a_sound_dataset(tmp_path: Path) -> None:
    """Sizes, bucket, crop, captions as on disk and as trained; it survives JSON."""
    picture_file(tmp_path / "2_set", width=96, height=64, caption="a cup\non a table")
    report = check_dataset(settings(tmp_path, captions=CaptionConfig(trigger_word="zok")))
    assert json.loads(json.dumps(report)) == report
    assert report["summary"] == {
        "images": 1, "regularization_images": 0, "per_epoch": 2, "buckets": 1, "errors": 0, "warnings": 0,
        "notes": 0, "excluded": 0,
    }  # fmt: skip
    assert report["buckets"] == [{"bucket": [64, 64], "images": 1, "per_epoch": 2}]
    (image,) = report["images"]
    assert image == {
        "path": str(tmp_path / "2_set" / "a.png"), "name": "2_set/a.png", "format": "PNG", "width": 96, "height": 64,
        "caption_path": str(tmp_path / "2_set" / "a.txt"), "caption": "a cup\non a table",
        "text": "zok, a cup on a table", "tokens": None, "repeats": 2, "regularization": False,
        "bucket": [64, 64], "resized": [96, 64], "crop": [16, 0], "kept": 0.6667, "problems": [],
        "cropped_to": None, "mask": None,
    }  # fmt: skip


def test_decoding_finds_what_headers_hide(tmp_path: Path) -> None:
    """A truncated picture and a transparent one; a quick check sees neither."""
    picture_file(tmp_path, "good.png")
    for name in ("half.jpg", "clear.png"):
        (tmp_path / name).with_suffix(".txt").write_text("x")
    (tmp_path / "half.jpg").write_bytes(REFUSED["half.jpg"]())
    clear = gradient().convert("RGBA")
    clear.putalpha(100)
    (tmp_path / "clear.png").write_bytes(encoded(clear, "PNG"))
    report = check_dataset(settings(tmp_path))
    assert codes(report) == ["picture", "transparent"]
    assert [image["name"] for image in report["images"]] == ["clear.png", "good.png"]
    assert [image["problems"] for image in report["images"]] == [["transparent"], []]
    assert report["summary"]["errors"] == 1
    assert codes(check_dataset(settings(tmp_path), decode=False)) == []


def test_warnings_are_said_once(tmp_path: Path) -> None:
    """The header and the decoded picture tell of the same animation."""
    more = {"save_all": True, "append_images": [gradient().rotate(90)]}
    (tmp_path / "a.webp").write_bytes(encoded(gradient(), "WEBP", **more))
    (tmp_path / "a.txt").write_text("x")
    assert codes(check_dataset(settings(tmp_path))) == ["animated"]


def test_crops_and_enlargements(tmp_path: Path) -> None:
    """A panorama in a square and a stamp at full size are questioned."""
    picture_file(tmp_path, "wide.png", width=300, height=100)
    picture_file(tmp_path, "tiny.png", width=20, height=20)
    report = check_dataset(settings(tmp_path, buckets=BucketConfig(enabled=False)), decode=False)
    assert codes(report) == ["cropped", "enlarged"]
    assert "33%" in report["problems"][1]["message"] and "3.2 times" in report["problems"][0]["message"]


def test_tokens_are_counted_against_their_limits(tmp_path: Path) -> None:
    """Each text once; an overflow of either encoder is a warning."""
    picture_file(tmp_path, "a.png", caption="two words")
    picture_file(tmp_path, "b.png", caption="two words")
    picture_file(tmp_path, "c.png", caption="word " * 90)
    words = Words()
    report = check_dataset(settings(tmp_path), tokenizers=(words, words), t5_limit=80, decode=False)
    assert [image["tokens"] for image in report["images"]] == [{"clip": 4, "t5": 4}] * 2 + [{"clip": 92, "t5": 92}]
    assert words.asked == 4 and codes(report) == ["clip-overflow", "t5-overflow"]
    assert count_tokens(["a"], words, words) == [TokenCount(3, 3)]


def test_small_buckets(tmp_path: Path) -> None:
    """A bucket that never fills a batch is told, repeats counted."""
    picture_file(tmp_path / "2_a", width=64, height=64)
    picture_file(tmp_path / "1_b", width=32, height=128)
    report = check_dataset(settings(tmp_path, buckets=BucketConfig(min_side=32, step=32)), batch_size=2)
    assert [found["path"] for found in report["problems"] if found["code"] == "small-bucket"] == ["32x128"]


@pytest.mark.parametrize("exists", [True, False])
def test_nothing_there(tmp_path: Path, exists: bool) -> None:
    """A report all the same, with an error."""
    report = check_dataset(settings(tmp_path if exists else tmp_path / "gone"))
    assert report["images"] == [] and report["summary"]["errors"] == 1
    assert ("nothing" if exists else "missing-folder") in codes(report)
