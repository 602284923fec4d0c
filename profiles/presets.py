"""Presets for the setup form: all recipes, the user's own too, and the demonstration's settings for the pocket model.

A preset is a part of a run's configuration as a plain table: the form fills its fields from it and takes the rest
over as it is. In prompts ``{trigger}`` stands for the trigger word. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from engine.config_file import parse_toml, read_text
from engine.errors import ConfigError
from engine.text import safe_text
from profiles.recipes import Recipe, all_recipes
from profiles.starters import FOLDER, POCKET

FIRST = ("character", "style", "concept", "product")
"""The recipes that ship, in the order of the form; the user's own come after them, the pocket model's last."""

TRIGGER = "{trigger}"
"""Stands for the trigger word in a prompt."""

DEMO_TRIGGER = "zorple"
"""What the demonstration's captions call the creature on its pictures."""

DEMO_PICTURES = POCKET / "demo" / "train"
DEMO_CLASS_PICTURES = POCKET / "demo" / "regularization"


@dataclass(frozen=True)
class Preset:
    """A named part of a configuration, and what it is for."""

    name: str
    title: str
    about: str
    table: Mapping[str, Any]


@dataclass(frozen=True)
class Shelf:
    """All presets as they were last read.

    Attributes:
        presets: by name, in the form's order.
        recipes: by name; the pocket model's settings are none.
        problems: what is wrong with the user's files that were skipped.
    """

    presets: Mapping[str, Preset]
    recipes: Mapping[str, Recipe]
    problems: tuple[ConfigError, ...]


@cache
def shelf() -> Shelf:
    """All presets: the user's files are read at the first call and after :func:`read_anew`."""
    recipes, problems = all_recipes()
    order = [*FIRST, *(name for name in recipes if name not in FIRST)]
    presets = {
        name: Preset(name, safe_text(recipe.file.title, 40), safe_text(recipe.file.about, 200), recipe.table)
        for name, recipe in ((name, recipes[name]) for name in order if name != "pocket")
    }
    return Shelf(presets | {"pocket": _pocket()}, recipes, problems)


def read_anew() -> None:
    """Let the user's files be looked at again."""
    shelf.cache_clear()


def preset(name: str) -> Preset:
    """The preset called ``name``, one of the shelf's. Its table is shared: copy before changing it."""
    return shelf().presets[name]


def _pocket() -> Preset:
    """The demonstration without its paths, as a preset for the pocket model."""
    table = parse_toml(read_text(FOLDER / "demo.toml"), FOLDER / "demo.toml")
    for key in ("version", "name", "seed"):
        del table[key]
    del table["dataset"]["folders"], table["dataset"]["captions"], table["validation"]["folder"]
    for prompt in table["sampling"]["prompts"]:
        prompt["prompt"] = prompt["prompt"].replace(DEMO_TRIGGER, TRIGGER)
    about = "the tiny model that ships with lorakiln: trains in about a minute, on a processor"
    return Preset("pocket", "pocket demo", about, table)
