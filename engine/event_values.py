"""What an event's field may hold, checked when it is read: files come from anybody, and screens believe events."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

_LARGEST = 2**53  # nothing that is counted comes near; beyond it floats and arrays lose whole numbers

hints_of: Callable[[Any], dict[str, Any]] = cache(get_type_hints)
"""The types of an event's fields, by name."""


def checked(hint: Any, value: Any) -> Any:
    """``value``, as JSON gave it, if it is of the type ``hint``: lists become tuples, whole numbers floats.

    Raises:
        ValueError: it is of another type, or a number that is not finite or too large.
    """
    # The plain kinds first: a long run has millions of them.
    if hint is float:
        if type(value) in (int, float) and not _LARGEST < abs(value) < math.inf:
            return float(value)
    elif type(value) is hint:
        if hint is not int or abs(value) <= _LARGEST:
            return value
    elif get_origin(hint) is UnionType:
        own = next((kind for kind in get_args(hint) if kind is not type(None)), None)
        return None if value is None and type(None) in get_args(hint) else checked(own, value)
    elif get_origin(hint) is tuple and isinstance(value, list):
        kinds = get_args(hint)
        if kinds[-1] is Ellipsis:
            return tuple(checked(kinds[0], item) for item in value)
        if len(kinds) == len(value):
            return tuple(checked(kind, item) for kind, item in zip(kinds, value, strict=True))
    raise ValueError(f"no {getattr(hint, '__name__', hint)}: {str(value)[:40]}")
