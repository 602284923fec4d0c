"""What a setting is called wherever one is named: errors, differences between runs, reports, trackers.

Dotted keys, and the tables of an array by their number from 1 in brackets: ``dataset.folders[1].path`` is the path of
the first folder. It stands alone because everything that names a setting names it by this.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from engine.text import safe_text

Keys = tuple[str | int, ...]
"""A place in a configuration: keys, and positions in arrays from 0."""


def dotted(keys: Keys) -> str:
    """``dataset.folders[1].path`` for the first folder, safe to show."""
    text = "".join(f"[{key + 1}]" if isinstance(key, int) else f".{safe_text(key, 80)}" for key in keys)
    return text.removeprefix(".")


def flat(table: Any, whole: Container[str] = (), name: str = "") -> dict[str, Any]:
    """Values by the names of their settings; an empty table has none.

    Args:
        table: a configuration as plain tables.
        whole: names of arrays of tables that are one value; arrays of plain values always are.
        name: of ``table``, before all others.
    """
    inner: dict[str, Any]
    if isinstance(table, Mapping):
        inner = {f"{name}.{key}" if name else str(key): value for key, value in table.items()}
    elif isinstance(table, list | tuple) and table and isinstance(table[0], Mapping) and name not in whole:
        inner = {f"{name}[{number}]": value for number, value in enumerate(table, start=1)}
    else:
        return {name: table}
    return {key: value for place, each in inner.items() for key, value in flat(each, whole, place).items()}
