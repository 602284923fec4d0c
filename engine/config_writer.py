"""A configuration as TOML text: documented when written anew, with its comments kept when edited.

Takes a :class:`engine.config.Part` and gives text; reading it back and everything about files is
:mod:`engine.config_file`'s. The comments are the docstrings that stand under the fields in their classes, so the
file explains itself and the explanation exists once.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import tomlkit
from tomlkit.exceptions import TOMLKitError

from engine.config import Part
from engine.errors import ConfigError
from engine.text import safe_text

COMMENT_WIDTH = 100


def config_text(config: Part, title: str = "") -> str:
    """Write ``config`` as TOML, every field with its value and its documentation as a comment.

    Fields that are unset (None) appear commented out. The text parses back to an equal configuration.

    Raises:
        ConfigError: a string in it cannot be written as UTF-8.
    """
    lines = [f"# {line}" for line in title.splitlines()]
    lines += _table_lines(config, ())
    text = "\n".join(lines).strip("\n") + "\n"
    _require_utf8(text)
    return text


def _require_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as err:
        around = safe_text(text[max(0, err.start - 60) : err.end + 20])
        raise ConfigError(
            "The configuration cannot be written as UTF-8", f"near: {around}", "Rename the file or folder it names."
        ) from err


def _table_lines(config: Part, path: tuple[str, ...]) -> Iterator[str]:
    """Lines of one table: plain values first, then its tables, as TOML wants it."""
    docs = field_docs(type(config))
    later: list[tuple[str, Any]] = []
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Part) or _is_table_array(value):
            later.append((name, value))
            continue
        yield from _comment(docs.get(name, ""), type(config), name)
        yield f"# {name} = (unset)" if value is None else f"{name} = {_literal(value)}"
    for name, value in later:
        inner = (*path, name)
        if isinstance(value, Part):
            yield from ("", *_comment(class_doc(type(value))), f"[{'.'.join(inner)}]")
            yield from _table_lines(value, inner)
            continue
        for item in value:
            yield from ("", f"[[{'.'.join(inner)}]]")
            yield from _table_lines(item, inner)


def table_text(table: Mapping[str, Any], title: str = "") -> str:
    """Write a plain table as TOML without documentation: the settings that someone chose, and nothing else.

    Raises:
        ConfigError: a string in it cannot be written as UTF-8.
    """
    lines = [f"# {line}".rstrip() for line in title.splitlines()]
    lines += _plain_lines(table, ())
    text = "\n".join(lines).strip("\n") + "\n"
    _require_utf8(text)
    return text


def _plain_lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    later: list[tuple[str, Any]] = []
    for name, value in table.items():
        if isinstance(value, Mapping) or _is_table_array(value):
            later.append((name, value))
        else:
            yield f"{_key(name)} = {_literal(value)}"
    for name, value in later:
        inner = (*path, name)
        heading = ".".join(map(_key, inner))
        if isinstance(value, Mapping):
            if any(not isinstance(item, Mapping) for item in value.values()) or not value:
                yield from ("", f"[{heading}]")
            yield from _plain_lines(value, inner)
            continue
        for item in value:
            yield from ("", f"[[{heading}]]")
            yield from _plain_lines(item, inner)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else tomlkit.item(name).as_string()


def _is_table_array(value: object) -> bool:
    return isinstance(value, tuple | list) and bool(value) and isinstance(value[0], Part | Mapping)


def _comment(doc: str, schema: type[Part] | None = None, name: str = "") -> Iterator[str]:
    """Comment lines for a field: its documentation, and the choices where it has them."""
    words = " ".join(doc.replace("``", "`").split())
    if schema is not None:
        choices = get_args(schema.model_fields[name].annotation)
        is_literal = get_origin(schema.model_fields[name].annotation) is Literal
        if is_literal and len(choices) > 1:
            words = f"{words} One of: {', '.join(map(str, choices))}.".strip()
    for line in textwrap.wrap(words, COMMENT_WIDTH, break_long_words=False, break_on_hyphens=False):
        yield f"# {line}"


def _literal(value: Any) -> str:
    """One TOML value on one line."""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, dict):
        inside = ", ".join(f"{key} = {_literal(item)}" for key, item in value.items())
        return "{ " + inside + " }" if inside else "{}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return tomlkit.item(value).as_string()


@cache
def field_docs(schema: type[Part]) -> dict[str, str]:
    """The docstrings that stand under the fields of ``schema`` in its source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(schema)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    docs: dict[str, str] = {}
    for field, below in pairwise(body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if (
            isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            docs[field.target.id] = below.value.value
    return docs


def class_doc(schema: type[Part]) -> str:
    """The first paragraph of a table's own docstring."""
    return (inspect.getdoc(schema) or "").split("\n\n")[0]


def edited_text(text: str, changes: Mapping[str, Any]) -> str:
    """Change values in a TOML text and keep everything else, comments and order too.

    Args:
        text: valid TOML.
        changes: by dotted key (``lora.rank``, ``dataset.folders.0.repeats``); None removes a key.

    Raises:
        ConfigError: a dotted key leads through something that is not a table.
    """
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as err:
        raise ConfigError("The configuration cannot be edited", safe_text(err)) from err
    for dotted, value in changes.items():
        _set(document, dotted, value)
    return tomlkit.dumps(document)


def _set(document: Any, dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    table: Any = document
    for key in parents:
        if isinstance(table, list) and key.isdigit() and int(key) < len(table):
            table = table[int(key)]
            continue
        if not isinstance(table, Mapping):
            raise ConfigError("No such key", f"{safe_text(dotted)}: {safe_text(key)} is not in a table")
        if key not in table:
            table[key] = tomlkit.table()  # type: ignore[index]
        table = table[key]
    if not isinstance(table, Mapping):
        raise ConfigError("No such key", f"{safe_text(dotted)} does not lead to a table")
    if value is None:
        table.pop(last, None)  # type: ignore[attr-defined]
    else:
        table[last] = _plain(value)  # type: ignore[index]


def _plain(value: Any) -> Any:
    """A value as tomlkit takes it: paths as text, tuples as lists, tables as dictionaries."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Part):
        return {name: _plain(item) for name, item in value if item is not None}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
