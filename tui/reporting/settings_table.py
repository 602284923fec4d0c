"""A configuration as a table: every setting that is not as it comes, and all of them folded away below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

from engine.config import RunConfig
from tui.reporting.markup import Markup, element, section, table
from tui.reporting.privacy import Shortener

LEFT_OUT = frozenset({"version", "cache_dir", "runs_dir"})
"""Tell of the machine, not of the LoRA."""

VALUE_LIMIT = 500


def settings(config: RunConfig | None, shorten: Shortener) -> Markup:
    """The section; ``config`` is None where it could not be read."""
    if config is None:
        return section("Settings", element("p", "The run's configuration cannot be read."), id_="settings")
    plain = defaults()
    every = flat(config, shorten)
    changed = {name: value for name, value in every.items() if plain.get(name) != value}
    rows = [(name, value, plain.get(name, "")) for name, value in changed.items()]
    rest = [(name, value) for name, value in every.items() if name not in changed]
    folded = element(
        "details",
        element("summary", f"{len(rest)} settings that are as they come"),
        table(("Setting", "Value"), rest, class_="figures"),
    )
    return section(
        "Settings",
        table(("Setting", "Value", "As it comes"), rows, "Settings that were chosen", class_="figures"),
        folded,
        id_="settings",
    )


def flat(config: RunConfig, shorten: Shortener) -> dict[str, str]:
    """Every setting by its dotted name, in words; paths by their last names."""
    return {
        name: _words(value, shorten)
        for name, value in _flat(config.model_dump())
        if name.split(".")[0] not in LEFT_OUT
    }


def defaults() -> dict[str, str]:
    """The settings that have a default, in words."""
    found: dict[str, str] = {}
    for name, kind in RunConfig.model_fields.items():
        value = kind.default
        if isinstance(value, BaseModel):
            found |= {f"{name}.{key}": _words(each, Shortener()) for key, each in _flat(value.model_dump())}
        elif not kind.is_required():
            found[name] = _words(value, Shortener())
        elif isinstance(kind.annotation, type) and issubclass(kind.annotation, BaseModel):
            for key, part in kind.annotation.model_fields.items():
                each = part.default
                if isinstance(each, BaseModel):
                    inner = _flat(each.model_dump(), f"{name}.{key}.")
                    found |= {path: _words(one, Shortener()) for path, one in inner}
                elif not part.is_required():
                    found[f"{name}.{key}"] = _words(each, Shortener())
    return found


def _flat(table_: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table_.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
            for number, each in enumerate(value, start=1):
                yield from _flat(each, f"{name}.{number}.")
        else:
            yield name, value


def _words(value: Any, shorten: Shortener) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, PurePath):
        return shorten.path(value)
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list | tuple):
        return ", ".join(_words(each, shorten) for each in value) or "none"
    text = shorten.text(str(value))
    return text[:VALUE_LIMIT] + ("…" if len(text) > VALUE_LIMIT else "") if text else "empty"
