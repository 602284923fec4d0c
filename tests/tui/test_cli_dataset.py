"""`kiln dataset check`: table, JSON and exit codes, through the command line's own entry."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from tui.__main__ import main


def picture(folder: Path, name: str = "a.png", caption: str | None = "a red cup") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    Image.linear_gradient("L").convert("RGB").save(path, "PNG")
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)
    return path


def test_table_and_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sound folder: every picture with its figures, the buckets, a verdict, 0."""
    picture(tmp_path / "3_cups")
    assert main(["dataset", "check", str(tmp_path), "--resolution", "128"]) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if "a.png" in line)
    assert row.split() == ["3_cups/a.png", "3", "256x256", "128x128", "0,0", "a", "red", "cup"]
    assert "128x128: 1 (3 an epoch)" in out and "0 errors, 0 warnings" in out


def test_errors_are_told_and_give_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Problem and remedy, errors before warnings."""
    picture(tmp_path, caption=None)
    (tmp_path / "b.txt").write_text("nobody's")
    assert main(["dataset", "check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert out.index("error    ") < out.index("warning  ")
    assert "The picture has no caption" in out and "Put a .txt or .caption file" in out


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole report and nothing else; names that are no text survive exactly."""
    path = picture(tmp_path, os.fsdecode(b"\xff\x1b[2J.png"))
    assert main(["dataset", "check", str(tmp_path), "--json", "--resolution", "512"]) == 0
    out = capsys.readouterr().out
    assert out.isascii() and "\x1b" not in out
    report = json.loads(out)
    assert report["images"][0]["path"] == str(path) and report["images"][0]["bucket"] == [512, 512]
    assert report["images"][0]["caption"] == "a red cup" and report["resolution"] == 512


def test_findings_are_grouped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What many pictures have is told once, with the first of them; folders with their share of an epoch."""
    for number in range(12):
        picture(tmp_path / "a", f"{number}.png", None)
    for name in ("x.png", "y.png"):
        picture(tmp_path / "3_b", name)
    command = ["dataset", "check", str(tmp_path), "--resolution", "256", "--recipe", "character"]
    assert main(command) == 1
    out = capsys.readouterr().out
    assert "error    No caption: 12" in out and "and 2 more; --all names them" in out
    assert out.count("Put a .txt or .caption file") == 1 and out.count("The picture has no caption") == 10
    assert "2 pictures are few for a character" in out and "byte by byte" in out
    assert main([*command, "--all"]) == 1
    assert capsys.readouterr().out.count("The picture has no caption") == 12
    for number in range(12):
        (tmp_path / "a" / f"{number}.txt").write_text("a cup, seen")
    assert main([*command, "--json", "--quick"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(part["name"], part["views"], part["suggested"]) for part in report["balance"]] == [
        ("3_b", 6, 6),
        ("a", 12, 1),
    ]
    notes = [found["code"] for found in report["problems"] if found["severity"] == "note"]
    assert notes == ["unnamed-framing", "unnamed-light", "unnamed-background"] and report["summary"]["notes"] == 3
    assert main([*command[:-1], "nobody's"]) == 2 and "Known are: character" in capsys.readouterr().err


def test_hostile_names_are_shown_harmlessly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences and markup in names are text, in the table and among the problems."""
    picture(tmp_path, "\x1b]52;c;QQ==\x1b\\.png")
    picture(tmp_path, "[_b] [@click=app.quit].png", caption=None)
    (tmp_path / "\x9b2J.gif").write_bytes(b"x")
    assert main(["dataset", "check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert not any((char < " " and char != "\n") or "\x7f" <= char <= "\x9f" for char in out)
    assert "\\x1b]52" in out and "[@click=app.quit]" in out


def test_settings_from_a_runs_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Folders, resolution and caption settings come from it; missing tokenizers only cost the counts."""
    picture(tmp_path / "pictures")
    names = ["transformer", "autoencoder", "clip_l", "t5"]
    model = "\n".join(f'{name} = "{name}.safetensors"' for name in names)
    (tmp_path / "run.toml").write_text(
        f'name = "x"\n[model]\n{model}\ndownload_tokenizers = false\n[dataset]\nresolution = 64\n'
        '[[dataset.folders]]\npath = "pictures"\nrepeats = 4\n[dataset.captions]\ntrigger_word = "zok"\n'
    )
    command = ["dataset", "check", "--json", "--quick", "--config", str(tmp_path / "run.toml")]
    assert main(command) == 0
    captured = capsys.readouterr()
    (image,) = json.loads(captured.out)["images"]
    assert (image["repeats"], image["text"], image["bucket"]) == (4, "zok, a red cup", [64, 64])
    assert "not counted" in captured.err
    assert main([*command, str(tmp_path / "gone")]) == 1


def test_bad_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No folder, impossible numbers, missing folders."""
    assert main(["dataset", "check"]) == 2
    assert "No folder to check" in capsys.readouterr().err
    for number in ("0", "-1", "nan", "9" * 30, "١٢٨"):
        assert main(["dataset", "check", str(tmp_path), "--resolution", number]) == 2
    assert main(["dataset", "check", str(tmp_path / "gone")]) == 1
    assert "does not exist" in capsys.readouterr().out


@pytest.mark.timeout(60)
def test_check_of_many_pictures_without_decoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = picture(tmp_path).read_bytes()
    for number in range(300):
        (tmp_path / f"{number}.png").write_bytes(data)
        (tmp_path / f"{number}.txt").write_text("a cup")
    assert main(["dataset", "check", str(tmp_path), "--quick"]) == 0
    assert "301 pictures" in capsys.readouterr().out
