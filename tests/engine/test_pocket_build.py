"""The program that makes the pocket model: interrupted stages end in the same bits, toy files load like real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.models.pocket.build import autoencoder, constants, draws, export, text, transformer, vocabulary
from engine.models.pocket.evaluate import draw, load_pocket
from engine.models.pocket.scenes import caption, random_rich_scene, random_scene, render

STEPS = 4


class Interrupted(Exception):
    """Stands for the user's Ctrl-C."""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every stage as short as it can be, in a folder of its own; the folder of the files."""
    for name, value in (
        ("ENCODER_SCENES", 48),
        ("TEXT_STEPS", 2),
        ("TEXT_BATCH", 6),
        ("POOL", 16),
        ("STEPS", STEPS),
        ("DECAY_STEPS", 2),
        ("BATCH", 2),
        ("DECODER_STEPS", STEPS),
        ("DECODER_DECAY", 2),
        ("DECODER_BATCH", 2),
    ):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(draws, "WORK", tmp_path / "work")
    files = tmp_path / "files"
    vocabulary.write_clip(files / "tokenizer")
    vocabulary.write_t5(files / "tokenizer_2")
    autoencoder.make_encoder()
    return files


def same(a: Any, b: Any) -> bool:
    """Equality to the bit of nested states."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def straight_and_interrupted(
    stage: str, run: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The stage's last state after one go, and after being stopped in the middle."""

    class Saving(draws.Progress):
        stop_at = 0

        def due(self, step: int, message: str) -> bool:
            if step == self.stop_at:
                raise Interrupted
            return True

    monkeypatch.setattr(draws, "Progress", Saving)
    run()
    straight = draws.load(stage)
    (draws.WORK / f"{stage}.safetensors").unlink()
    Saving.stop_at = 3
    with pytest.raises(Interrupted):
        run()
    halfway = draws.load(stage)
    assert halfway is not None and halfway["step"] == 2
    Saving.stop_at = 0
    run()
    resumed = draws.load(stage)
    assert straight is not None and resumed is not None
    return straight, resumed


def test_an_interrupted_decoder_ends_in_the_same_bits(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight, resumed = straight_and_interrupted("decoder", autoencoder.train_decoder, monkeypatch)
    assert straight["step"] == STEPS and same(straight, resumed)


def test_an_interrupted_transformer_ends_in_the_same_bits_and_loads_as_a_checkpoint(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text.train_text(toy)
    transformer.make_pool()
    straight, resumed = straight_and_interrupted(
        "transformer", lambda: transformer.train_transformer(toy), monkeypatch
    )
    assert straight["step"] == STEPS and same(straight, resumed)

    autoencoder.train_decoder()
    export.export_autoencoder(toy)
    export.export_transformer(toy)
    pictures = draw(load_pocket(toy), ["a red circle at the left on a white background"], steps=2)
    assert pictures[0].size == (64, 64)


def test_the_encoder_is_the_projection_it_was_written_from(toy: Path) -> None:
    model = autoencoder.make_encoder()
    rng = draws.rng("test", 0)
    values = autoencoder.pixels([render(random_rich_scene(rng)) for _ in range(8)])
    weight, bias = autoencoder.projection()
    patches = torch.nn.functional.unfold(values, 8, stride=8).transpose(1, 2).double()
    wanted = (patches @ weight.T + bias).transpose(1, 2).reshape(8, 16, 8, 8)
    assert (autoencoder.encode(model, values) - wanted).abs().max() < 0.05


def test_captions_of_every_kind_are_tokenized_alike_by_build_and_engine(toy: Path) -> None:
    from engine.models.tokenizers import load_clip_tokenizer, load_t5_tokenizer

    tokens = vocabulary.Tokens(toy)
    clip = load_clip_tokenizer(toy / "clip.safetensors", toy / "tokenizer")
    t5 = load_t5_tokenizer(toy / "t5.safetensors", toy / "tokenizer_2")
    rng = draws.rng("test", 1)
    lines = [text.line_for(random_scene(rng), rng).text for _ in range(40)]
    lines += [caption(random_rich_scene(rng)) for _ in range(10)]
    for line in [*lines, "", "a zorple at the left", "An Ünknown wörd, 42!", "x" * 80]:
        clip_ids, t5_ids = tokens(line)
        assert clip.encode([line], constants.CLIP_TOKENS)[0][0] == clip_ids
        assert t5.encode([line], constants.T5_TOKENS)[0][0] == t5_ids
