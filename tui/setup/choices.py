"""What was chosen for this machine, and what of it the user fixed: kept as JSON among the form's values.

The wizard's solver chooses settings by their dotted names in the configuration. Those that have a field of the form
are written into it; the others are laid over the form's table here. A field that was changed after the solver wrote
it (in the setup form, say) counts as fixed by the user.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tui.setup.fields import FIELDS, schema_default, shown

CHOSEN, FIXED = "@chosen", "@fixed"
"""Keys among the form's values; no field is called so."""

GOALS = frozenset({"lora.rank", "lora.targets"})
"""Settings that the user's goal decides: the solver is told, not asked."""

_FIELD_OF = {field.key: field.id for field in FIELDS.values() if field.key}

Values = dict[str, str]
Table = dict[str, Any]


def chosen(values: Values) -> Table:
    """What was chosen last, by dotted key."""
    return _read(values, CHOSEN)


def fixed(values: Values, start: Mapping[str, Any] | None = None) -> Table:
    """What the user fixed: by hand in the wizard, or by changing a field after the choice was written into it.

    Args:
        start: what stood in the fields before anything was chosen, by dotted key.
    """
    held, last = _read(values, FIXED), {**(start or {}), **chosen(values)}
    found: Table = {}
    for key in {**held, **last}:
        value, name = held.get(key, last.get(key)), _FIELD_OF.get(key)
        typed = None if name is None else values.get(name)
        if key in GOALS:
            continue
        if key in held or (typed is not None and typed != shown(value)):
            found[key] = value if typed is None else _as(value, typed)
    return found


def fix(values: Values, key: str, value: Any) -> None:
    """The user wants this value; a goal is written into its field and not held apart."""
    if key not in GOALS:
        values[FIXED] = json.dumps(_read(values, FIXED) | {key: value})
    _write(values, key, value)


def give_back(values: Values, *keys: str) -> None:
    """Leave settings to the solver again; until it has chosen, they stay as they are."""
    left = {name: _read(values, name) for name in (FIXED, CHOSEN)}
    for key in keys:
        left[FIXED].pop(key, None)
        name = _FIELD_OF.get(key)
        if name is not None:  # what stands in the field counts as chosen, so that it does not look changed
            last = left[CHOSEN].get(key, schema_default(key))
            left[CHOSEN][key] = _as(last, values[name])
    for name, table in left.items():
        values[name] = json.dumps(table)


def take(values: Values, changes: Mapping[str, Any], held: Mapping[str, Any]) -> None:
    """Write what was chosen around ``held``, which the user fixed."""
    values[FIXED] = json.dumps(held)
    values[CHOSEN] = json.dumps({key: value for key, value in changes.items() if key not in GOALS})
    for key, value in changes.items():
        if key not in GOALS:
            _write(values, key, held.get(key, value))


def forget(values: Values) -> None:
    """Nothing is chosen, nothing fixed: another model, or a new form."""
    values.pop(CHOSEN, None)
    values.pop(FIXED, None)


def forget_fields(values: Values) -> None:
    """What stands in the fields now is nobody's choice: a preset filled them in."""
    for name in (CHOSEN, FIXED):
        if name in values:
            values[name] = json.dumps(
                {key: value for key, value in _read(values, name).items() if key not in _FIELD_OF}
            )


def overlay(values: Values) -> Table:
    """Settings without a field, by dotted key, as chosen or fixed."""
    together = chosen(values) | _read(values, FIXED)
    return {key: value for key, value in together.items() if key not in _FIELD_OF}


def _write(values: Values, key: str, value: Any) -> None:
    """Into the field, where there is one; else the table takes it from what is kept."""
    name = _FIELD_OF.get(key)
    if name is not None:
        values[name] = shown(value)


def _read(values: Values, name: str) -> Table:
    try:
        table = json.loads(values.get(name, "{}"))
    except (ValueError, RecursionError):
        return {}  # a session of another version, or damaged: there is nothing to keep of it
    return table if isinstance(table, dict) else {}


def _as(like: Any, text: str) -> Any:
    """What is typed, as a value like the one that was chosen; the text itself where it is none."""
    try:
        return type(like)(text) if isinstance(like, int | float) and not isinstance(like, bool) else text
    except ValueError:
        return text
