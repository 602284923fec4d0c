"""The shipped pocket model: size, completeness, its dataset, and whether it draws what it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from engine.models.pocket.check import read, shows_concept
from engine.models.pocket.concept import TRIGGER
from engine.models.pocket.evaluate import FILES, Pocket, evaluate, load_pocket, model_config
from engine.models.pocket.scenes import SIZE
from engine.models.tokenizers import load_clip_tokenizer, load_t5_tokenizer

DEMO = FILES.parent / "demo"


@pytest.fixture(scope="module")
def pocket() -> Pocket:
    """The shipped model, loaded once."""
    return load_pocket()


def pairs(folder: Path) -> list[tuple[Image.Image, str]]:
    """A demo folder's pictures with their captions."""
    return [
        (Image.open(path).convert("RGB"), path.with_suffix(".txt").read_text("utf-8").strip())
        for path in sorted(folder.glob("*.png"))
    ]


def test_the_files_are_small_enough() -> None:
    assert sum(path.stat().st_size for path in FILES.rglob("*") if path.is_file()) <= 12_000_000


@pytest.mark.parametrize("word", ["zorple", "Zorple", "sks", "ohwx", "naïve", "日本", "🙂", "a1-b2_c3", "x" * 300])
def test_every_word_is_tokenized_to_something(word: str) -> None:
    config = model_config()
    clip = load_clip_tokenizer(config.clip_l, config.clip_tokenizer)
    t5 = load_t5_tokenizer(config.t5, config.t5_tokenizer)
    assert clip.count(word) > 2
    assert t5.count(word) > 1


def test_a_grammar_word_is_one_token() -> None:
    config = model_config()
    line = "a red circle at the left on a white background"
    assert load_clip_tokenizer(config.clip_l, config.clip_tokenizer).count(line) == 12
    assert load_t5_tokenizer(config.t5, config.t5_tokenizer).count(line) == 11


def test_the_demo_dataset_is_complete() -> None:
    train, held_out = pairs(DEMO / "train"), pairs(DEMO / "held_out")
    assert (len(train), len(held_out)) == (16, 8)
    assert not {text for _, text in train} & {text for _, text in held_out}
    for picture, text in train + held_out:
        assert picture.size == (SIZE, SIZE)
        assert TRIGGER in text.split()
        assert shows_concept(picture)


def test_the_regularization_pictures_are_ordinary() -> None:
    ordinary = pairs(DEMO / "regularization")
    assert len(ordinary) >= 32
    for picture, text in ordinary:
        assert TRIGGER not in text
        assert not shows_concept(picture)


def test_the_latents_have_unit_variance_and_survive_the_round_trip(pocket: Pocket) -> None:
    from engine.models.pocket.build.autoencoder import pixels

    values = pixels([picture for picture, _ in pairs(DEMO / "regularization")])
    mean, std = pocket.autoencoder.encode(values)
    assert 0.7 < mean.std().item() < 1.3
    assert std.max().item() < 0.05
    error = (pocket.autoencoder.decode(mean) - values).square().mean()
    assert 10 * torch.log10(4 / error).item() > 30.0


def test_it_draws_what_it_is_asked_for(pocket: Pocket) -> None:
    report = evaluate(pocket)
    for half in ("seen", "unseen"):
        shares = report[half]
        assert isinstance(shares, dict)
        assert shares["colour, background, position"] >= 0.9, (half, shares)
        assert shares["all four"] >= 0.8, (half, shares)
    pictures = report["pictures"]
    assert isinstance(pictures, list)
    assert not any(shows_concept(picture) for picture in pictures)


def test_the_checker_reads_what_the_autoencoder_gives_back(pocket: Pocket) -> None:
    from engine.models.pocket.build.autoencoder import pixels
    from engine.models.pocket.evaluate import as_picture, prompt_scenes
    from engine.models.pocket.scenes import render

    seen, unseen = prompt_scenes(64, 1)
    scenes = seen + unseen
    mean, _ = pocket.autoencoder.encode(pixels([render(scene) for scene in scenes]))
    readings = [read(as_picture(values)) for values in pocket.autoencoder.decode(mean)]
    found = [(r.shape, r.colour, r.background, r.position) for r in readings]
    assert sum(a == b.combination for a, b in zip(found, scenes, strict=True)) >= 63
