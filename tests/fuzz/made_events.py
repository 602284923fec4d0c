"""One event of every kind, with a plain value in every field."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_type_hints

from engine.events import EVENT_TYPES, Event

_VALUES: dict[Any, Any] = {
    int: 3,
    float: 1.5,
    str: "a",
    tuple[str, ...]: ("memory.blocks_to_swap = 24",),
    tuple[int, ...]: (3, 4),
    tuple[float, ...]: (0.5, 0.25),
    tuple[tuple[str, float], ...]: (("single", 0.5),),
    float | None: 0.5,
    bool: True,
}
_SPECIAL = {"kind": "epoch", "level": "info", "path": "/runs/a/a.safetensors", "factor": 2.0}


def every_event() -> list[Event]:
    """In the order of a run's life: its start first, its end last."""
    return [_made(kind) for kind in EVENT_TYPES.values()]


def _made(kind: type[Event]) -> Event:
    hints = get_type_hints(kind)
    values = {part.name: _SPECIAL.get(part.name, _VALUES[hints[part.name]]) for part in fields(kind)}
    if kind.__name__ in ("StateChanged", "RunDone"):
        values |= {"state": "training"} if "state" in values else {"reason": "finished"}
    return kind(**values)
