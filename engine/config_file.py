"""Reads and writes configuration files: TOML in, a checked :class:`RunConfig` out, every problem told with its line.

A file may come from a stranger, so nothing in it is trusted: its size, nesting and numbers are bounded, unknown keys
are refused with the nearest known one, and neither ``~`` nor variables are expanded. Relative paths count from the
file's folder. Reading uses ``tomllib`` (strict and quick), writing ``tomlkit`` (keeps comments).
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from engine.config import CONFIG_VERSION, Part, RunConfig
from engine.config_problems import Problem, explain, path_keys
from engine.errors import ConfigError
from engine.files import atomic_write
from engine.text import safe_text
from engine.toml_positions import find_positions

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32

Schema = TypeVar("Schema", bound=Part)
Table = dict[str, Any]

MIGRATIONS: dict[int, Callable[[Table], Table]] = {}
"""From a version to the next: takes and returns the file's raw table. Version 1 is the first."""


def load_config(path: Path) -> RunConfig:
    """Read and check a run's configuration; its paths come back absolute.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or breaks the schema; every problem is listed.
    """
    return parse_config(read_text(path), path)


def parse_config(text: str, source: Path | None = None) -> RunConfig:
    """Check a configuration given as text.

    Args:
        text: TOML.
        source: the file it came from, for messages and as the base of relative paths; without one, relative paths
            stay as they are.

    Raises:
        ConfigError: every problem found, each with its line and key.
    """
    table = _migrated(parse_toml(text, source), source)
    if source is not None:
        table.setdefault("runs_dir", "runs")
    return check_table(table, text, RunConfig, source)


def save_config(config: RunConfig, path: Path, title: str = "") -> None:
    """Write ``config`` to ``path``, documented and with absolute paths, so that it means the same anywhere.

    Raises:
        ConfigError: a path in it cannot be written as UTF-8.
        DiskError: nothing was changed.
    """
    from engine.config_writer import config_text

    atomic_write(path, config_text(absolute_paths(config), title))


def update_config(path: Path, changes: Mapping[str, Any]) -> RunConfig:
    """Change values of a configuration file by dotted key, keep its comments, and return the new configuration.

    Args:
        path: the file.
        changes: for example ``{"lora.rank": 32, "dataset.folders.0.repeats": 2}``; None removes a key.

    Raises:
        ConfigError: the changed file would not be valid; it was not touched.
        DiskError: it could not be written; nothing was changed.
    """
    from engine.config_writer import edited_text

    text = edited_text(read_text(path), changes)
    config = parse_config(text, path)
    atomic_write(path, text)
    return config


def read_text(path: Path) -> str:
    """The text of a configuration file: UTF-8 without a byte order mark, at most 256 kB.

    Raises:
        ConfigError: there is no such regular file, or it is something else.
    """
    shown = safe_text(path)
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "does not exist"
            raise ConfigError("The configuration cannot be read", f"{shown} {what}", _no_file_hint(path))
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as err:
        reason = safe_text(getattr(err, "strerror", None) or err)
        raise ConfigError("The configuration cannot be read", f"{shown}: {reason}", "") from err
    if len(data) > MAX_BYTES:
        raise ConfigError(
            "The configuration is too large", f"{shown} holds more than 256 kB", "Is this the right file?"
        )
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(
            "The configuration starts with a byte order mark",
            f"{shown}, line 1: TOML is plain UTF-8",
            "Save it as UTF-8 without a byte order mark (BOM).",
        )
    try:
        return data.decode()
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise ConfigError(
            "The configuration is not UTF-8",
            f"{shown}, line {line}: byte 0x{data[err.start]:02x} is no UTF-8",
            "Save it as UTF-8.",
        ) from err


def _no_file_hint(path: Path) -> str:
    if path.is_dir() and (path / "config.toml").is_file():
        return f"Is {safe_text(path / 'config.toml')} meant? `kiln resume` goes on with a run's folder."
    return "" if path.exists() else "`kiln new NAME` writes a configuration to start from."


def parse_toml(text: str, source: Path | None = None) -> Table:
    """Parse TOML text into plain tables, bounded in depth.

    Raises:
        ConfigError: it is not TOML (with line and column), or nested beyond reason.
    """
    try:
        table = tomllib.loads(text)
    except RecursionError as err:
        raise _too_deep(source) from err
    except ValueError as err:
        raise ConfigError(
            "The configuration is not valid TOML",
            f"{_where(source)}{_syntax_error(err, text)}",
            "Text needs quotes, a key may appear once, and brackets must close.",
        ) from err
    if _depth(table) > MAX_DEPTH:
        raise _too_deep(source)
    return table


def _too_deep(source: Path | None) -> ConfigError:
    return ConfigError(
        "The configuration is nested too deeply",
        f"{_where(source)}more than {MAX_DEPTH} levels",
        "Is it a lorakiln file?",
    )


def _where(source: Path | None) -> str:
    return f"{safe_text(source)}, " if source is not None else ""


def _syntax_error(err: ValueError, text: str) -> str:
    message = safe_text(err)
    match = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if match:
        return f"line {match[1]}, column {match[2]}: {message[: match.start()]}"
    endless = re.search(r"\d{4300}", text)
    if endless:
        return f"line {text.count(chr(10), 0, endless.start()) + 1}: a number with thousands of digits"
    return f"line {text.rstrip().count(chr(10)) + 1}: {message}"


def _depth(table: Table) -> int:
    deepest, level = 0, [cast(Any, table)]
    while level and deepest <= MAX_DEPTH:
        deepest += 1
        below = [list(item.values()) if isinstance(item, dict) else item for item in level]
        level = [item for items in below for item in items if isinstance(item, dict | list)]
    return deepest


def _migrated(table: Table, source: Path | None) -> Table:
    """Bring a table of an older version up to date; refuse one from the future."""
    version = table.get("version", 1)
    if isinstance(version, bool) or not isinstance(version, int):
        return table  # the schema says what is wrong with it
    if version > CONFIG_VERSION:
        raise ConfigError(
            "The configuration is of a newer version",
            f"{_where(source)}version {version}; this lorakiln reads up to {CONFIG_VERSION}",
            "Update lorakiln.",
        )
    while version in MIGRATIONS:
        table = MIGRATIONS[version](table)
        version = table["version"]
    return table


def check_table(table: Table, text: str, schema: type[Schema], source: Path | None) -> Schema:
    """Check parsed TOML against ``schema``; paths are resolved against the folder of ``source``.

    Raises:
        ConfigError: every problem found.
    """
    checked, problems = examine(table, schema, source)
    if checked is None or problems:
        raise _config_error(problems, text, source)
    return checked


def examine(table: Table, schema: type[Schema], source: Path | None = None) -> tuple[Schema | None, list[Problem]]:
    """Check a table like :func:`check_table` and return the problems as values: for forms, which show each in place.

    The checked value is None, or to be ignored, when there are problems.
    """
    base = source.absolute().parent if source is not None else None
    problems: list[Problem] = []
    plain = _plain(table, (), problems)
    _resolve_paths(plain, schema, base, problems)
    checked: Schema | None = None
    try:
        # Validated as JSON because there strict means what it says in TOML: text is no number and 1 no boolean,
        # while a list is a tuple and text a path.
        checked = schema.model_validate_json(json.dumps(plain), strict=True)
    except ValidationError as err:
        problems += explain(err, schema, known={problem.keys for problem in problems})
    return checked, problems


def _config_error(problems: list[Problem], text: str, source: Path | None) -> ConfigError:
    lines = find_positions(text)
    located = sorted(((problem.line(lines), problem) for problem in problems), key=lambda pair: pair[0])
    name = safe_text(source.name) if source is not None else "configuration"
    count = "a problem" if len(located) == 1 else f"{len(located)} problems"
    detail = "\n".join(f"{_where(source)}line {line}: {problem.message}" for line, problem in located)
    hints = list(dict.fromkeys(problem.hint for _, problem in located if problem.hint))
    return ConfigError(f"{name} has {count}", detail, "\n".join(hints[:3]))


def _plain(value: Any, keys: tuple[str | int, ...], problems: list[Problem]) -> Any:
    """Copy parsed TOML as JSON can hold it; dates and times, which no setting is, become problems."""
    if isinstance(value, dict):
        return {key: _plain(item, (*keys, key), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, (*keys, index), problems) for index, item in enumerate(value)]
    if isinstance(value, datetime | date | time):
        problems.append(Problem(keys, "is a date or time; put it in quotes if text is meant"))
        return None
    return value


def _resolve_paths(table: Any, schema: type[Part], base: Path | None, problems: list[Problem]) -> None:
    for keys in path_keys(table, schema):
        *parents, last = keys
        inner = table
        for key in parents:
            inner = inner[key]
        problem = _path_problem(inner[last])
        if problem:
            problems.append(Problem(keys, *problem))
        elif base is not None:
            inner[last] = os.path.normpath(base / inner[last])


def _path_problem(value: str) -> tuple[str, str] | None:
    """Why ``value`` is no path to use, and what to do; None if it is one."""
    shown = safe_text(value, 80)
    if not value.strip():
        return "is an empty path", ""
    if "\0" in value or len(value) > 4096:
        return f'"{shown}" is no path', ""
    if value.startswith("~"):
        return f'"{shown}": ~ is not expanded in configuration files', "Write the path in full."
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", value):
        return f'"{shown}" is an address; only files and folders are read', "Download it and name the file."
    return None


def absolute_paths(config: RunConfig) -> RunConfig:
    """The same configuration with every relative path made absolute from the current folder."""
    table = config.model_dump()
    for keys in path_keys(table, RunConfig):
        *parents, last = keys
        inner: Any = table
        for key in parents:
            inner = inner[key]
        inner[last] = Path(os.path.abspath(inner[last]))
    return RunConfig.model_validate(table)
