"""Token counts with the published tokenizers, and the limits of a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import ModelConfig
from engine.dataset.tokens import TokenCount, count_tokens, load_tokenizers, t5_limit
from engine.errors import ModelFileError


def model(folder: Path, **options: object) -> ModelConfig:
    names = ("transformer", "autoencoder", "clip_l", "t5")
    return ModelConfig(**{name: folder / f"{name}.safetensors" for name in names}, **options)


def test_counts_include_the_special_tokens(tokenizer_files: Path, tmp_path: Path) -> None:
    """CLIP has a start and an end, T5 an end; T5 writes "a" as two pieces."""
    config = model(tmp_path, clip_tokenizer=tokenizer_files / "clip", t5_tokenizer=tokenizer_files / "t5")
    clip, t5 = load_tokenizers(config)
    assert count_tokens(["", "a photo of a cat", ""], clip, t5) == [
        TokenCount(2, 1), TokenCount(7, 8), TokenCount(2, 1),
    ]  # fmt: skip
    (many,) = count_tokens([", ".join(f"tag {number}" for number in range(400))], clip, t5)
    assert many.clip > 77 and many.t5 > 512


def test_the_limit_is_the_settings_or_the_models(tmp_path: Path) -> None:
    """A length given in the settings needs no model file; without either there is an error, not a guess."""
    (tmp_path / "transformer.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelFileError):
        t5_limit(model(tmp_path))
    assert t5_limit(model(tmp_path, t5_length=300)) == 300
