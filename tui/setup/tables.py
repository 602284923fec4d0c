"""Plain tables of settings and dotted keys in them: look up, set, take out, lay one over another, put in order."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from engine.config import Part

Table = dict[str, Any]


def lookup(table: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """The value at a dotted key."""
    value: Any = table
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return default
        value = value[name]
    return value


def put(table: Table, key: str, value: Any) -> None:
    """Set the value at a dotted key."""
    *parents, last = key.split(".")
    for name in parents:
        table = table.setdefault(name, {})
    table[last] = value


def drop(table: Table, key: str) -> None:
    """Remove a dotted key, if it is there."""
    *parents, last = key.split(".")
    inner = lookup(table, ".".join(parents)) if parents else table
    if isinstance(inner, dict):
        inner.pop(last, None)


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """``over`` laid upon ``under``, table by table; both stay as they are."""
    result: Table = copy.deepcopy(dict(under))
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, dict) and isinstance(value, Mapping):
            result[key] = merged(below, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def ordered(table: Table, schema: type[Part]) -> Table:
    """The same table in the schema's order; what the schema does not know comes last."""
    known = [name for name in schema.model_fields if name in table]
    result: Table = {}
    for name in [*known, *(name for name in table if name not in known)]:
        value = table[name]
        inner = schema.model_fields[name].annotation if name in known else None
        if isinstance(inner, type) and issubclass(inner, Part) and isinstance(value, dict):
            value = ordered(value, inner)
            if not value:
                continue
        result[name] = value
    return result
