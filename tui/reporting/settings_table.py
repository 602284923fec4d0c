"""A configuration as a table: every setting that is not as it comes, and all of them folded away below."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any, get_args

from pydantic import BaseModel

from engine.config import RunConfig
from engine.config_names import flat as by_name
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
    changed = {name: value for name, value in every.items() if plain.get(_starred(name)) != value}
    rows = [(name, value, plain.get(_starred(name), "")) for name, value in changed.items()]
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
        for name, value in by_name(config.model_dump()).items()
        if name.split(".")[0] not in LEFT_OUT
    }


def defaults(kind: type[BaseModel] = RunConfig, before: str = "") -> dict[str, str]:
    """The settings that have a default, in words; a star stands for the number of one of several tables."""
    found: dict[str, str] = {}
    for key, part in kind.model_fields.items():
        name = f"{before}{key}"
        inner = [one for one in (part.annotation, *get_args(part.annotation)) if _is_table(one)]
        if inner:
            found |= defaults(inner[0], f"{name}." if inner[0] is part.annotation else f"{name}[*].")
        if not part.is_required() and (not inner or inner[0] is not part.annotation):
            found[name] = _words(part.default, Shortener())
    return found


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _starred(name: str) -> str:
    return re.sub(r"\[\d+\]", "[*]", name)


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
