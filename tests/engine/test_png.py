"""PNG files: right pixels, parameters that other programs read, whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.errors import DiskError, RunError
from engine.text import safe_text
from engine.training.png import parameters_text, picture_pixels, save_png

PARAMETERS: dict[str, Any] = {
    "prompt": "a red circle, left",
    "negative": "blurry",
    "seed": 7,
    "width": 8,
    "height": 4,
    "steps": 20,
    "guidance": 3.5,
    "cfg": 1.0,
    "model": "flux1-dev",
    "step": 100,
    "run_name": "one: two",
}


def _saved(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def test_pixels_are_scaled_rounded_and_clipped() -> None:
    decoded = torch.tensor([-2.0, -1.0, -0.5, 0.0, 1.0, 3.0]).reshape(1, 1, 6).repeat(3, 1, 1)
    assert picture_pixels(decoded)[0, :, 0].tolist() == [0, 0, 64, 128, 255, 255]
    assert picture_pixels(decoded[None]).shape == (1, 6, 3)
    levels = torch.arange(256).float() / 127.5 - 1
    assert picture_pixels(levels.reshape(1, 1, 256).repeat(3, 1, 1))[0, :, 1].tolist() == list(range(256))


def test_shapes_and_values_that_are_no_picture() -> None:
    with pytest.raises(ValueError):
        picture_pixels(torch.zeros(4, 8, 8))
    with pytest.raises(ValueError):
        picture_pixels(torch.zeros(2, 3, 8, 8))
    with pytest.raises(RunError, match="not finite"):
        picture_pixels(torch.full((3, 8, 8), float("nan")))


def test_parameters_in_the_common_form() -> None:
    assert parameters_text(PARAMETERS) == (
        "a red circle, left\nNegative prompt: blurry\n"
        "Steps: 20, Sampler: Euler, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 7, Model: flux1-dev, Size: 8x4, "
        'Step: 100, Run name: "one: two", Version: lorakiln'
    )
    assert parameters_text({"prompt": "x"}) == "x\nSampler: Euler, Version: lorakiln"


def test_file_carries_pixels_and_parameters(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 3), dtype=np.uint8)
    save_png(tmp_path / "sub" / "a.png", pixels, PARAMETERS)
    image = _saved(tmp_path / "sub" / "a.png")
    assert image.format == "PNG"
    assert np.array_equal(np.asarray(image), pixels)
    assert image.info["parameters"] == parameters_text(PARAMETERS)
    assert json.loads(image.info["lorakiln"]) == PARAMETERS
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    "prompt", ["猫 and 🐈", "line\nline", "\x1b]0;title\x07", "lone \ud800 surrogate", "", "a" * 9000]
)
def test_any_prompt_can_be_stored(tmp_path: Path, prompt: str) -> None:
    save_png(tmp_path / "a.png", torch.zeros(3, 4, 4), {"prompt": prompt, "steps": 1})
    image = _saved(tmp_path / "a.png")
    assert json.loads(image.info["lorakiln"])["prompt"] == prompt
    assert image.info["parameters"].startswith(safe_text(prompt, 20_000, newlines=True))


def test_a_failing_disk_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    save_png(path, torch.zeros(3, 4, 4), {"prompt": "old"})

    def full(*_args: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match="full"):
        save_png(path, torch.ones(3, 4, 4), {"prompt": "new"})
    assert json.loads(_saved(path).info["lorakiln"]) == {"prompt": "old"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
