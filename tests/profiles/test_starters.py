"""The recipes are valid configurations and the demonstration names files that ship with lorakiln."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config_file import load_config, parse_config
from engine.errors import ConfigError
from profiles.starters import STARTERS, demo_config, starter


def test_the_demo_runs_on_shipped_files(tmp_path: Path) -> None:
    config = demo_config(tmp_path)
    assert config.runs_dir == tmp_path
    assert config.cache_dir is not None and config.cache_dir.is_relative_to(tmp_path)
    model = config.model
    for path in (model.transformer, model.autoencoder, model.clip_l, model.t5):
        assert path.is_file(), path
    assert model.clip_tokenizer is not None and model.clip_tokenizer.exists()
    assert model.t5_tokenizer is not None and model.t5_tokenizer.exists()
    for folder in config.dataset.folders:
        assert any(folder.path.glob("*.png")), folder.path
    assert config.dataset.captions.trigger_word
    assert config.sampling.prompts


@pytest.mark.parametrize("recipe", STARTERS)
def test_starters_are_valid_and_keep_their_comments(recipe: str, tmp_path: Path) -> None:
    text = starter(recipe, "my cat")
    assert parse_config(text).name == "my-cat"
    assert "# " in text
    path = tmp_path / "RUN.toml"
    path.write_text(text)
    assert load_config(path).dataset.folders[0].path == tmp_path / "pictures"


def test_an_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="flux_dev"):
        starter("nope", "x")
