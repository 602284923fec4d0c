"""What a user prefers on this machine, in one small TOML file; everything in it is optional.

The file is ``settings.toml`` in the user's configuration folder (``~/.config/lorakiln`` on Linux), or the one that
``$LORAKILN_SETTINGS`` names. It is the user's own, so ``~`` is expanded here, unlike in configurations. The screen
writes one value of it, the theme, and keeps all else in it, comments too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import AfterValidator, Field, field_validator

from engine.config import Part
from engine.config_file import MAX_BYTES, check_table, parse_toml, read_text
from engine.errors import ConfigError
from engine.files import atomic_write
from tui.caption_template import TEMPLATE

Images = Literal["auto", "kitty", "sixel", "cells", "half", "off"]


def _known_id(name: str) -> str:
    from tui.keymap import check_id

    return check_id(name)


def _known_keys(keys: str) -> str:
    from tui.keymap import check_keys

    return check_keys(keys)


class Commands(Part):
    """Programs of the user's that make a picture of a copy; run on request, never by a shell.

    A list of words: the program and its arguments, with ``{in}`` for the file to read and ``{out}`` for the PNG to
    write, for example ``upscale = ["upscayl-bin", "-i", "{in}", "-o", "{out}"]``.
    """

    upscale: tuple[str, ...] = ()
    background: tuple[str, ...] = ()

    @field_validator("upscale", "background")
    @classmethod
    def _with_places(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if words and not all(any(place in word for word in words[1:]) for place in ("{in}", "{out}")):
            raise ValueError("needs a program, and {in} and {out} among its arguments")
        return words


class Editing(Part):
    """How captions are typed."""

    words: Annotated[str, Field(max_length=4096)] = "auto"
    """A file of words, one a line, for finding misspelt ones; auto takes the system's if there is one, off none."""
    template: Annotated[str, Field(min_length=1, max_length=1000)] = TEMPLATE
    """The sentence of the template; what is in square brackets are its slots."""
    completion: bool = True
    """Offer words and tags of the dataset's other captions while one is typed."""


class Settings(Part):
    """All there is to set."""

    theme: Annotated[str, Field(min_length=1, max_length=80)] = "auto"
    """auto, dark, light, high-contrast, 16-colours, or a file of the folder ``themes`` beside this one."""
    images: Images = "auto"
    """How pictures are drawn: auto asks the terminal; kitty and sixel need one that knows them; cells and half are
    characters; off draws none."""
    mouse: bool = True
    """false leaves the mouse to the terminal, for selecting text without shift."""
    animation: bool = False
    """Smooth scrolling; never over a slow link."""
    refresh_hz: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 0.0
    """Most frames a second; 0 is 60 on a quick terminal and 20 over a slow link."""
    ascii: Literal["auto", "on", "off"] = "auto"
    """Draw in plain ASCII; auto does where the locale is not UTF-8, and on the bare Linux console."""
    keys: Literal["default", "vim"] = "default"
    """A set of keys to start from; ``keymap`` changes single ones."""
    keymap: dict[Annotated[str, AfterValidator(_known_id)], Annotated[str, AfterValidator(_known_keys)]] = Field(
        default_factory=dict
    )
    """Other keys for commands: a command's id and its keys, for example ``"run.pause" = "p,f9"``."""
    editing: Editing = Editing()
    """How captions are typed."""
    model_folders: tuple[str, ...] = ()
    """Folders that are searched for models first."""
    commands: Commands = Commands()

    @field_validator("keymap", mode="before")
    @classmethod
    def _flat(cls, table: Any) -> Any:
        """``run.pause = "p"`` without quotes is a table in a table: meant is the same."""
        if not isinstance(table, dict):
            return table
        flat: dict[str, Any] = {}
        for name, value in table.items():
            inner = value if isinstance(value, dict) else {"": value}
            flat |= {f"{name}.{key}" if key else name: item for key, item in inner.items()}
        return flat

    @field_validator("keymap", mode="after")
    @classmethod
    def _distinct(cls, keymap: dict[str, str]) -> dict[str, str]:
        from tui.keymap import check_clashes

        check_clashes(keymap)
        return keymap

    @property
    def model_roots(self) -> list[Path]:
        """The model folders as paths, ``~`` expanded."""
        return [Path(folder).expanduser() for folder in self.model_folders]


def settings_path() -> Path:
    """Where the settings are read from; need not exist."""
    given = os.environ.get("LORAKILN_SETTINGS")
    return Path(given) if given else Path(platformdirs.user_config_dir("lorakiln")) / "settings.toml"


def own_words_path() -> Path:
    """Where the user's own right words are; need not exist."""
    return settings_path().with_name("words.txt")


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


def keep_setting(name: str, value: str) -> None:
    """Write one value to the settings file, which is made where there is none; the rest of it stays as it is.

    Raises:
        ConfigError: the file that stands there cannot be used, or the value cannot.
        DiskError: it could not be written; nothing was changed.
    """
    from engine.config_writer import edited_text

    path = settings_path()
    text = edited_text(read_text(path) if path.exists() else "", {name: value})
    if len(text.encode()) > MAX_BYTES:
        raise ConfigError("The settings are too large", "more than 256 kB", "Is this the right file?")
    check_table(parse_toml(text, path), text, Settings, path)
    atomic_write(Path(os.path.realpath(path)), text)  # what a link leads to, not the link
