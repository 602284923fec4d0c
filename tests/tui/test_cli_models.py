"""`kiln models` as a user types it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tui.__main__ import main

POCKET = Path(__file__).resolve().parents[2] / "engine" / "models" / "pocket" / "files"


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--root", str(POCKET), "--json"]) == 0
    found = {Path(item["path"]).name: item for item in json.loads(capsys.readouterr().out)}
    kinds = {name: item["kind"] for name, item in found.items()}
    assert kinds == {
        "ae-pocket.safetensors": "autoencoder",
        "clip-pocket.safetensors": "clip_l",
        "flux-pocket.safetensors": "transformer",
        "t5-pocket.safetensors": "t5",
    }
    assert all(item["complete"] and item["family"] == "flux1" for item in found.values())
    flux = found["flux-pocket.safetensors"]
    assert flux["variant"] == "dev"
    assert flux["dtype"] == "fp16"
    assert flux["parameters"] > 10**6


def test_the_list_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.ckpt").write_bytes(b"\x80\x02.")
    assert main(["models", "--root", str(POCKET), "--root", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["KIND", "FAMILY", "VARIANT"]
    assert any("transformer" in line and "complete" in line for line in lines)
    assert any("bad.ckpt" in line and "pickle" in line for line in lines)


def test_nothing_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--root", str(tmp_path)]) == 0
    assert "--root DIR" in capsys.readouterr().out
    assert main(["models", "--root", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(POCKET / "flux-pocket.safetensors")
    assert main(["models", "inspect", path]) == 0
    shown = capsys.readouterr().out
    assert "flux1 dev transformer" in shown
    assert "hidden_size" in shown
    assert main(["models", "inspect", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "transformer"
    assert found["missing"] == []
    assert found["params"]["depth"] >= 1


def test_inspect_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import load_file, save_file

    whole = load_file(POCKET / "t5-pocket.safetensors")
    half = dict(list(whole.items())[: len(whole) // 2])
    save_file(half, tmp_path / "half.safetensors")
    assert main(["models", "inspect", str(tmp_path / "half.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert "missing:" in shown
    assert any(name in shown for name in set(whole) - set(half))


@pytest.mark.parametrize("name", ["m.ckpt", "m.pt", "m.bin", "m.safetensors"])
def test_pickles_are_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02}q\x00." + bytes(40))
    for more in ([], ["--json"]):
        assert main(["models", "inspect", str(tmp_path / name), *more]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert "can run any program" in said.err
        assert "safetensors" in said.err


def test_names_are_shown_harmlessly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"a\x1b]52;c;eA==\x07\xff[red].safetensors")
    (tmp_path / name).write_bytes(b"{}")
    assert main(["models", "--root", str(tmp_path)]) == 0
    assert main(["models", "--root", str(tmp_path), "--json"]) == 0
    assert main(["models", "inspect", str(tmp_path / name)]) == 2
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "[red]" in said.out


@pytest.mark.parametrize("words", [["inspect"], ["inspect", "a", "b"], ["look"], ["--root", "/absent/folder"]])
def test_bad_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", *words]) == 2
    assert capsys.readouterr().err


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings with one folder that holds the pocket T5 and one that does not exist; no other known folders."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "t5.safetensors").symlink_to(POCKET / "t5-pocket.safetensors")
    path = tmp_path / "settings.toml"
    path.write_text(f"model_folders = {[str(tmp_path / 'mine'), str(tmp_path / 'unplugged')]}\n")
    monkeypatch.setenv("LORAKILN_SETTINGS", str(path))
    monkeypatch.setattr("tui.commands.models.known_roots", list)
    return path


def test_folders_of_the_settings_are_searched_and_a_missing_one_is_told(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--json"]) == 0
    said = capsys.readouterr()
    assert [item["path"] for item in json.loads(said.out)] == [str(settings.parent / "mine" / "t5.safetensors")]
    (line,) = said.err.splitlines()
    assert line.startswith("warning: ") and "unplugged" in line and str(settings) in line


def test_a_root_replaces_the_settings_folders(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (settings.parent / "empty").mkdir()
    assert main(["models", "--root", str(settings.parent / "empty"), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == [] and said.err == ""
