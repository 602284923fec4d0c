"""Finding models: every folder once, every file with its reason, links and odd names included."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from model_files import tiny_flux, write

from engine.errors import ModelFileError
from engine.models.find import find_models, known_roots


def test_good_and_bad_files_are_listed(tmp_path: Path) -> None:
    tiny_flux(tmp_path / "a" / "deep" / "x.safetensors") if (tmp_path / "a" / "deep").mkdir(
        parents=True
    ) is None else 0
    (tmp_path / "b.ckpt").write_bytes(b"\x80\x02}q\x00.")
    (tmp_path / "c.bin").write_bytes(b"anything")
    (tmp_path / "d.safetensors").write_bytes(b"")
    (tmp_path / "e.txt").write_bytes(b"not looked at")
    found = {info.path.name: info for info in find_models([tmp_path])}
    assert list(found) == ["x.safetensors", "b.ckpt", "c.bin", "d.safetensors"]
    assert found["x.safetensors"].complete
    for name in ("b.ckpt", "c.bin"):
        assert found[name].kind == "unknown"
        assert "pickle" in found[name].note
    assert "empty" in found["d.safetensors"].note


def test_links_are_followed_once(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    tiny_flux(real / "m.safetensors")
    (real / "again").symlink_to(real)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "linked").symlink_to(real)
    (tmp_path / "root" / "m2.safetensors").symlink_to(real / "m.safetensors")
    (tmp_path / "root" / "gone.safetensors").symlink_to(real / "absent")
    assert len(find_models([tmp_path / "root", real, real / "m.safetensors"])) == 1


def test_odd_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    tiny_flux(tmp_path / "folder.safetensors" / "inner.safetensors")
    name = os.fsdecode(b"bad\xff\x1b[2J.safetensors")
    (tmp_path / name).write_bytes(b"{}")
    found = find_models([tmp_path])
    assert [info.path.name for info in found] == [name, "inner.safetensors"]
    assert "\x1b" not in found[0].note


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such folder"):
        find_models([tmp_path / "absent"])


def test_known_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "COMFYUI_PATH"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    wanted = [
        tmp_path / "comfy" / "models",
        tmp_path / "ComfyUI" / "models",
        tmp_path / "stable-diffusion-webui-forge" / "models",
        tmp_path / "kohya_ss" / "models",
        tmp_path / ".cache" / "huggingface" / "hub",
    ]
    assert not set(wanted) & set(known_roots())
    for folder in wanted:
        folder.mkdir(parents=True)
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "comfy"))
    assert set(wanted) <= set(known_roots())
    assert len(known_roots()) == len(set(known_roots()))


def test_many_files_are_quick(tmp_path: Path) -> None:
    for number in range(200):
        write(tmp_path / f"{number}.safetensors", {"x.lora_down.weight": torch.zeros(1)})
    assert {info.kind for info in find_models([tmp_path])} == {"lora"}
