"""The user's settings file."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from tui.settings import Settings, load_settings, settings_path


def test_no_file_means_defaults() -> None:
    assert load_settings() == Settings()


def test_settings_are_read_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "settings.toml"
    monkeypatch.setenv("LORAKILN_SETTINGS", str(path))
    assert settings_path() == path
    path.write_text('model_folders = ["~/models", "/m"]\n[keymap]\n"run.pause" = "p"\n')
    settings = load_settings()
    assert settings.model_roots == [Path.home() / "models", Path("/m")]
    assert settings.keymap == {"run.pause": "p"}
    path.write_text("model_folder = []\n")
    with pytest.raises(ConfigError, match="line 1: model_folder is not a known key; did you mean model_folders"):
        load_settings()
