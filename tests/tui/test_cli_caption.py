"""`kiln caption`: answers beside the pictures, missing captions written, JSON and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.captioners import making
from engine.captioners.drafts import Draft, drafts_of
from tui.__main__ import main


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tagger's folder, and what answers in its place."""
    folder = tmp_path / "wd"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "selected_tags.csv").write_text("name,category\na,0\n")

    class Fake:
        def caption(self, pictures: Sequence[Any], stop: Callable[[], bool]) -> list[str]:
            return ["a cup\x1b[2J \x7f"] * len(pictures)

    monkeypatch.setattr(making, "_load", lambda found, request: Fake())
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a", "b"):
        Image.linear_gradient("L").convert("RGB").save(folder / f"{name}.png")
    (folder / "a.txt").write_text("mine\n")
    return folder


def test_answers_are_kept_apart_from_captions(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["caption", str(data), "--with", str(model), "--batch", "2", "--trigger", "ohwx"]
    assert main(words) == 0
    assert "2 captioned" in capsys.readouterr().out
    drafts = [draft for _, draft in drafts_of(sorted(data.glob("*.png"))) if isinstance(draft, Draft)]
    assert [draft.text for draft in drafts] == ["ohwx, a cup[2J"] * 2
    assert sorted(path.name for path in data.glob("*.txt")) == ["a.txt"]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["known"] == 2 and report["complete"] and report["captions"] == []
    assert report["prompt"] == "general 0.35, characters 0.85 (trigger: ohwx)"


def test_only_missing_captions_are_written(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caption", str(data), "--with", str(model), "--batch", "1", "--write-missing", "--json"]) == 0
    out = capsys.readouterr().out
    report = json.loads(out)
    assert out.isascii() and "\x7f" not in out
    assert report["captions"] == [{"picture": str(data / "b.png"), "text": "a cup[2J", "written": True}]
    assert (data / "a.txt").read_text() == "mine\n" and (data / "b.txt").read_text() == "a cup[2J\n"


def test_pictures_that_all_fail_give_1_and_bad_input_2(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in data.glob("*.png"):
        path.write_bytes(b"no picture")
    assert main(["caption", str(data), "--with", str(model), "--batch", "1"]) == 1
    assert "2 failed" in capsys.readouterr().out
    for words in (
        [], [str(data)], [str(data), "--with", str(tmp_path)], [str(tmp_path / "none"), "--with", str(model)],
        [str(data), "--with", str(model), "--batch", "0"], [str(data), "--with", str(model), "--general", "nan"],
    ):  # fmt: skip
        assert main(["caption", *words]) == 2, words
    assert "Traceback" not in capsys.readouterr().err
