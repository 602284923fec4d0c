"""Recipes: what people start from for a kind of subject, by number of pictures, with hints. No torch.

Those that ship lie in ``recipes/*.toml``, each value with its source; the user's own lie in a folder of theirs and
win over one of the same name. A recipe's ``[config]`` is a part of a run's configuration. In prompts ``{trigger}``
stands for the trigger word. A file that breaks the schema is told with line and key, and skipped.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from pydantic import Field, model_validator

from engine.config import (
    Count,
    DatasetConfig,
    FolderConfig,
    LoraConfig,
    MemoryConfig,
    ObjectiveConfig,
    OptimizerConfig,
    Part,
    Positive,
    SamplingConfig,
    SavingConfig,
    ScheduleConfig,
    TrainingConfig,
)
from engine.config_file import check_table, parse_toml, read_text
from engine.errors import ConfigError
from engine.text import safe_text

FOLDER = Path(__file__).parent / "recipes"
Range = Annotated[tuple[int, int], Field(min_length=2, max_length=2)]


class Pictures(Part):
    """How many pictures the subject wants."""

    least: Count
    best: Count
    most: Count

    @model_validator(mode="after")
    def _ordered(self) -> Pictures:
        if not self.least <= self.best <= self.most:
            raise ValueError(f"least {self.least}, best {self.best} and most {self.most} must be in this order")
        return self


class Steps(Part):
    """Steps outside of which a run is rarely good."""

    least: Count
    most: Count

    @model_validator(mode="after")
    def _ordered(self) -> Steps:
        if self.least > self.most:
            raise ValueError(f"least {self.least} must not be above most {self.most}")
        return self


class Rates(Part):
    """Learning rates of the Adam family: what is usual, and up to where it may work."""

    green: tuple[Positive, Positive] = (5e-5, 2e-4)
    amber: Positive = 4e-4

    @model_validator(mode="after")
    def _ordered(self) -> Rates:
        if not self.green[0] <= self.green[1] <= self.amber:
            raise ValueError("green must go from low to high, and amber must be above it")
        return self


class Band(Part):
    """How long, for so many pictures."""

    pictures: tuple[Count, Count]
    """From, to."""
    repeats: Count
    epochs: Count
    every: Count = 1
    """Epochs from one saved LoRA, and its samples, to the next."""


class Hints(Part):
    """What to photograph and what to write beneath."""

    pictures: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()


class RecipeDataset(DatasetConfig):
    """A run's dataset without its folders."""

    folders: tuple[FolderConfig, ...] = ()


class RecipeConfig(Part):
    """The part of a run's configuration that a recipe may fill in."""

    dataset: RecipeDataset = RecipeDataset()
    lora: LoraConfig = LoraConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: TrainingConfig = TrainingConfig()
    memory: MemoryConfig = MemoryConfig()
    sampling: SamplingConfig = SamplingConfig()
    saving: SavingConfig = SavingConfig()


class RecipeFile(Part):
    """A recipe's file."""

    title: Annotated[str, Field(min_length=1, max_length=40)]
    about: Annotated[str, Field(max_length=200)]
    model: str = "flux1"
    """Family of the base model."""
    pictures: Pictures
    steps: Steps
    learning_rate: Rates = Rates()
    bands: Annotated[tuple[Band, ...], Field(min_length=1)]
    hints: Hints = Hints()
    config: RecipeConfig


@dataclass(frozen=True)
class Recipe:
    """A recipe as read.

    Attributes:
        name: of its file.
        table: its ``[config]`` as it stands there, without defaults; shared, so copy before changing it.
        own: the user's.
    """

    name: str
    file: RecipeFile
    table: Mapping[str, Any]
    own: bool = False

    def band(self, pictures: int) -> Band:
        """How long, for so many pictures; the nearest band where none covers them."""

        def distance(band: Band) -> int:
            first, last = band.pictures
            return max(first - pictures, pictures - last, 0)

        return min(self.file.bands, key=distance)


@cache
def shipped() -> Mapping[str, Recipe]:
    """The recipes that come with lorakiln, by name."""
    return {path.stem: read_recipe(path) for path in sorted(FOLDER.glob("*.toml"))}


def own_folder(kind: str = "recipes") -> Path:
    """Where the user's own files of this kind lie; need not exist."""
    return Path(platformdirs.user_config_dir("lorakiln")) / kind


def all_recipes(folder: Path | None = None) -> tuple[dict[str, Recipe], tuple[ConfigError, ...]]:
    """Every recipe by name, the user's over those that ship, and what is wrong with files that were skipped."""
    recipes, problems = dict(shipped()), []
    for path in toml_files(own_folder() if folder is None else folder):
        try:
            recipe = read_recipe(path, own=True)
        except ConfigError as err:
            problems.append(err)
        else:
            recipes[recipe.name] = recipe
    return recipes, tuple(problems)


def toml_files(folder: Path) -> list[Path]:
    """The TOML files of a folder by name; none where there is no such folder."""
    return sorted(path for path in folder.glob("*.toml") if path.is_file()) if folder.is_dir() else []


def read_recipe(path: Path, own: bool = False) -> Recipe:
    """Read a recipe's file.

    Raises:
        ConfigError: it cannot be read, is no TOML, or breaks the schema; every problem with line and key.
    """
    text = read_text(path)
    table = parse_toml(text, path)
    file = check_table(table, text, RecipeFile, path)
    return Recipe(safe_text(path.stem, 40), file, tomllib.loads(text)["config"], own)
