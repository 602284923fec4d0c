"""What a screen leaves in a host's memory once it is gone: given back, for the next one may come from anywhere.

Textual and Rich remember thousands of styles, colours and regions by what they were computed from, for the life of
the process. Screens of other sizes, themes and pictures never ask for the same again, so under a host that trains
for a week those memories only grow. And what a screen was drawn with lies between what the engine keeps, in pages
that the C library would not return by itself.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import sys
from collections.abc import Iterator, Mapping
from typing import Any

DRAWING = frozenset({"textual", "rich", "tui"})
"""Packages whose functions remember what they drew."""

_Cached: Any = functools._lru_cache_wrapper


def forget_screen() -> None:
    """Give back what the screen that just ended was drawn with; nothing of it may be in use any more."""
    # Some of them are by object: by parser, which keeps its last key, the key the application.
    for cached in caches():
        cached.cache_clear()
    # The application is one large cycle; what it froze against collections must be looked at again.
    gc.unfreeze()
    gc.collect()
    trim()


def caches() -> Iterator[Any]:
    """The functions and methods of the packages that draw which remember their results."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in DRAWING and module is not None:
            yield from _caches_of(vars(module))
            for value in list(vars(module).values()):
                if isinstance(value, type) and value.__module__ == name:
                    yield from _caches_of(vars(value))


def _caches_of(names: Mapping[str, Any]) -> Iterator[Any]:
    for value in list(names.values()):
        function = getattr(value, "fget", getattr(value, "__func__", value))
        if isinstance(function, _Cached) and function.__module__.partition(".")[0] in DRAWING:
            yield function


def trim() -> None:
    """Return free pages to the system, where the C library has a call for it (glibc)."""
    with_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if with_trim is not None:
        with_trim(0)
