"""A sweep planned: one configuration at several rates, ranks, seeds or other values. Pure.

Comes in: a configuration and what is to be varied. Goes out: a configuration for each run, alike in everything else,
so that they compare: the same caches, the same seed and held-out pictures unless the seed is what varies.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.config_file import absolute_paths, parse_config
from engine.config_writer import config_text, edited_text
from engine.errors import ConfigError
from engine.files import slug
from engine.text import safe_text

MOST_RUNS = 64

RATE, RANK, SEED = "optimizer.learning_rate", "lora.rank", "seed"

USUAL_RATES = (5e-5, 1e-4, 2e-4)
"""Tried where nothing else is said: half, once and twice the usual rate of FLUX.1 LoRAs."""

SHORT = {RATE: "lr", RANK: "r", SEED: "s"}
"""What a setting is called in the names of runs; others by the last part of theirs."""

NOT_VARIED = frozenset({"name", "runs_dir", "cache_dir", "version"})

NAME_CHARS = 80


@dataclass(frozen=True)
class Axis:
    """A setting by its dotted name, and the values that it takes."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep: its name, what is its own by dotted name, and its configuration as text and checked."""

    name: str
    changes: Mapping[str, Any]
    text: str
    config: RunConfig


def axis_of(text: str) -> Axis:
    """``key=value,value`` with values as in TOML; bare words are text.

    Raises:
        ConfigError: it is not of that form.
    """
    key, sign, values = (part.strip() for part in text.partition("="))
    if not sign or not key or not values:
        raise ConfigError("This cannot be varied", safe_text(text, 200), "Give KEY=VALUE,VALUE.")
    found = _toml(f"[{values}]")
    if not isinstance(found, list):
        found = [_toml(part.strip(), part.strip()) for part in values.split(",")]
    return Axis(key, tuple(found))


def plan_sweep(config: RunConfig, axes: Sequence[Axis], folder: Path) -> list[PlannedRun]:
    """A run for each combination of values, in the order in which they are given; ``folder`` is where they will lie.

    Raises:
        ConfigError: there are too many, or a value is none that the setting can have.
    """
    axes = [Axis(axis.key, tuple(_unique(axis.values))) for axis in axes] or [Axis(RATE, USUAL_RATES)]
    _refuse(axes)
    base = config_text(absolute_paths(measured(config)))
    taken: dict[str, None] = {}
    runs = []
    for values in itertools.product(*(axis.values for axis in axes)):
        changes = {axis.key: value for axis, value in zip(axes, values, strict=True)}
        named = {axis.key: changes[axis.key] for axis in axes if axis.key in SHORT or len(axis.values) > 1}
        name = _name(config.name, named, taken)
        text = edited_text(base, changes | {"name": name, "runs_dir": folder.absolute()})
        runs.append(PlannedRun(name, changes, text, _checked(text, changes)))
    return runs


def measured(config: RunConfig) -> RunConfig:
    """The configuration with measuring turned on, unless it says something of it: without it nothing compares."""
    said = config.validation.model_fields_set
    if said & {"every_epochs", "every_steps"}:
        return config
    validation = config.validation.model_copy(update={"every_epochs": "auto"})
    return config.model_copy(update={"validation": validation})


def measures(config: RunConfig) -> bool:
    """Whether its runs are measured on held-out pictures, as far as the configuration tells."""
    validation = config.validation
    held = validation.folder is not None or validation.held_out != 0
    return held and bool(validation.every_epochs or validation.every_steps)


def words(changes: Mapping[str, Any]) -> str:
    """What is a run's own, in one line."""
    return safe_text(", ".join(f"{key} = {_word(value)}" for key, value in changes.items()), 200)


def _refuse(axes: Sequence[Axis]) -> None:
    keys = [axis.key for axis in axes]
    for key in keys:
        if key in NOT_VARIED or keys.count(key) > 1:
            why = "is given twice" if keys.count(key) > 1 else "is the sweep's own"
            raise ConfigError("This cannot be varied", f"{safe_text(key, 120)} {why}")
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > MOST_RUNS:
        sizes = " x ".join(str(len(axis.values)) for axis in axes)
        raise ConfigError("Too many runs", f"{sizes} = {count}, of at most {MOST_RUNS}", "Vary less at a time.")


def _checked(text: str, changes: Mapping[str, Any]) -> RunConfig:
    try:
        return parse_config(text)
    except ConfigError as err:
        # The lines told are those of a text that nobody has seen: what is said of them stays.
        problems = [line.partition(": ")[2] or line for line in err.detail.splitlines()]
        raise ConfigError(f"No run can have {words(changes)}", "\n".join(problems), err.hint) from err


def _name(name: str, changes: Mapping[str, Any], taken: dict[str, None]) -> str:
    """``name-lr5e-05-r8``, no longer than a name may be, and no run's twice."""
    parts = [SHORT.get(key, key.rpartition(".")[2]) + _word(value) for key, value in changes.items()]
    end = re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(parts)).strip("-._")[: NAME_CHARS // 2]
    found = f"{slug(name)[: NAME_CHARS - len(end) - 4]}-{end}".rstrip("-")
    while found in taken:
        found += "x"
    taken[found] = None
    return found


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _unique(values: Sequence[Any]) -> list[Any]:
    """Each value once; 1 is not true."""
    found: dict[str, Any] = {}
    for value in values:
        found.setdefault(repr(value), value)
    return list(found.values())


def _toml(text: str, otherwise: Any = None) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return otherwise
