"""What is wrong with a configuration, in words: schema errors translated, nearest known keys, lines found.

Takes pydantic's findings and the schema, gives :class:`Problem` values that :mod:`engine.config_file` puts lines to.
It stands alone because it is the one place that knows pydantic's error vocabulary.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from engine.config import Part
from engine.config_names import Keys, dotted
from engine.text import safe_text

MOST = 100
"""Problems that are told; who has more corrects these first."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong: where (keys and array positions), what, and what to do about it."""

    keys: Keys
    what: str
    hint: str = ""

    @property
    def message(self) -> str:
        """The dotted key and what is wrong with it."""
        return f"{dotted(self.keys)} {self.what}" if self.keys else self.what

    def line(self, lines: Mapping[Keys, int]) -> int:
        """Line of the key, or of the closest table around it; 1 for the file as a whole."""
        keys = self.keys
        while keys and keys not in lines:
            keys = keys[:-1]
        return lines.get(keys, 1)


def explain(error: ValidationError, schema: type[Part], known: Container[Keys] = ()) -> list[Problem]:
    """Every finding of pydantic as a :class:`Problem`, except at places already ``known`` to be wrong."""
    every = error.errors(include_url=False)
    findings = every[:MOST]
    places = [_place(finding["loc"]) for finding in findings]
    problems = []
    for finding, keys in zip(findings, places, strict=True):
        if keys in known:
            continue
        # An array whose every element is wrong is reported as too short as well: only the cause is worth telling.
        if finding["type"] == "too_short" and any(place[: len(keys)] == keys != place for place in places):
            continue
        problems.append(_problem(finding["type"], keys, finding["msg"], finding.get("input"), schema))
    if len(every) > MOST:
        problems.append(Problem((), f"{len(every) - MOST} more problems are not listed"))
    return problems


def _place(loc: tuple[str | int, ...]) -> Keys:
    """pydantic marks a bad key of a free table with an element of its own."""
    return loc[:-1] if loc and loc[-1] == "[key]" else loc


def _problem(kind: str, keys: Keys, text: str, given: Any, schema: type[Part]) -> Problem:
    level = _schema_at(schema, keys[:-1])
    if kind == "extra_forbidden":
        return _unknown_key(keys, level)
    if kind == "missing":
        table = f"[{dotted(keys[:-1])}]" if len(keys) > 1 else "the top of the file"
        return Problem(keys, f"is missing; it belongs in {table}")
    if kind == "value_error":
        return _broken_rule(keys, text.removeprefix("Value error, "), _schema_at(schema, keys))
    if kind == "literal_error":
        return _no_choice(keys, given, level)
    should = text.replace("Input should", "should").replace("Tuple should", "should").replace(" after validation", "")
    should = should.replace("an object", "a table").replace("String should", "should")
    return Problem(keys, f"is {_shown(given)}; it {should}")


def _unknown_key(keys: Keys, level: type[Part] | None) -> Problem:
    names = list(level.model_fields) if level is not None else []
    nearest = difflib.get_close_matches(str(keys[-1]), names, 1, 0.5)
    if nearest:
        return Problem(keys, f"is not a known key; did you mean {dotted((*keys[:-1], nearest[0]))}?")
    return Problem(keys, f"is not a known key; known here: {', '.join(names)}")


def _broken_rule(keys: Keys, text: str, level: type[Part] | None) -> Problem:
    """A rule over several fields is reported at the field that its text starts with."""
    first = re.match(r"\w+", text)
    if first and level is not None and first[0] in level.model_fields:
        return Problem((*keys, first[0]), safe_text(text[first.end() :].lstrip(": "), 500))
    return Problem(keys, safe_text(text, 500))


def _no_choice(keys: Keys, given: Any, level: type[Part] | None) -> Problem:
    choices = _choices(level, keys)
    nearest = difflib.get_close_matches(str(given), choices, 1, 0.5)
    guess = f'; did you mean "{nearest[0]}"?' if nearest else ""
    return Problem(keys, f"is {_shown(given)}; it should be one of {', '.join(choices)}{guess}")


def _choices(level: type[Part] | None, keys: Keys) -> list[str]:
    """The literals allowed at ``keys``, whose table is ``level`` (or whose array's table, for an element)."""
    name = next((key for key in reversed(keys) if isinstance(key, str)), "")
    if level is None or name not in level.model_fields:
        return []
    found: list[str] = []
    waiting = [level.model_fields[name].annotation]
    while waiting:
        args = get_args(waiting.pop())
        found += [str(arg) for arg in args if isinstance(arg, str | int)]
        waiting += [arg for arg in args if get_args(arg)]
    return found


def _shown(value: Any) -> str:
    return safe_text(f'"{value}"' if isinstance(value, str) else _toml_word(value), 60)


def _toml_word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    return "an array" if isinstance(value, list) else str(value)


def _schema_at(schema: type[Part], keys: Keys) -> type[Part] | None:
    """The table that ``keys`` lead to; the table around it where they lead to an array; None in free tables of
    anything but tables."""
    level: type[Part] | None = schema
    free = False
    for key in keys:
        if isinstance(key, int) or free:
            free = False
            continue
        if level is None or key not in level.model_fields:
            return None
        part = _part_in(level.model_fields[key].annotation)
        if part is None:
            return level if _is_array(level.model_fields[key].annotation) else None
        free = get_origin(level.model_fields[key].annotation) is dict
        level = part
    return level


def _is_array(annotation: Any) -> bool:
    return get_origin(annotation) is tuple


def _part_in(annotation: Any) -> type[Part] | None:
    """The table type in an annotation, whether plain, optional or in an array."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation
    for inner in get_args(annotation):
        found = _part_in(inner)
        if found is not None:
            return found
    return None


def path_keys(table: Any, schema: type[Part], keys: Keys = ()) -> Iterator[Keys]:
    """Keys of every text in ``table`` that the schema takes as a path."""
    if not isinstance(table, dict):
        return
    for name, field in schema.model_fields.items():
        value = table.get(name)
        inner = (*keys, name)
        part = _part_in(field.annotation)
        if part is not None and isinstance(value, list | tuple):
            for index, item in enumerate(value):
                yield from path_keys(item, part, (*inner, index))
        elif part is not None:
            yield from path_keys(value, part, inner)
        elif isinstance(value, str | Path) and _takes_path(field.annotation):
            yield inner
        elif isinstance(value, list | tuple) and _takes_path(field.annotation):
            yield from ((*inner, index) for index, item in enumerate(value) if isinstance(item, str | Path))


def _takes_path(annotation: Any) -> bool:
    return annotation is Path or any(_takes_path(inner) for inner in get_args(annotation))
