"""What a user prefers on this machine, in one small TOML file; everything in it is optional.

The file is ``settings.toml`` in the user's configuration folder (``~/.config/lorakiln`` on Linux), or the one that
``$LORAKILN_SETTINGS`` names. It is the user's own, so ``~`` is expanded here, unlike in configurations.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
from pydantic import Field

from engine.config import Part
from engine.config_file import check_table, parse_toml, read_text


class Settings(Part):
    """All there is to set."""

    model_folders: tuple[str, ...] = ()
    """Folders that `kiln models` searches first."""
    keymap: dict[str, str] = Field(default_factory=dict)
    """Other keys for the screen's bindings: binding id to keys, for example ``"run.pause" = "p"``."""

    @property
    def model_roots(self) -> list[Path]:
        """The model folders as paths, ``~`` expanded."""
        return [Path(folder).expanduser() for folder in self.model_folders]


def settings_path() -> Path:
    """Where the settings are read from; need not exist."""
    given = os.environ.get("LORAKILN_SETTINGS")
    return Path(given) if given else Path(platformdirs.user_config_dir("lorakiln")) / "settings.toml"


def load_settings() -> Settings:
    """The user's settings; the defaults where no file stands.

    Raises:
        ConfigError: the file cannot be used; every problem with its line.
    """
    path = settings_path()
    if not path.exists():
        return Settings()
    text = read_text(path)
    return check_table(parse_toml(text, path), text, Settings, path)
