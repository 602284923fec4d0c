"""A host remembers nothing of how a screen was drawn that is gone."""

from __future__ import annotations

import functools
import gc
from pathlib import Path

from watching import until

from tui.app import KilnApp
from tui.terminal.forgetting import DRAWING, caches, forget_screen, trim
from tui.terminal.traits import Traits
from tui.workplace import Workplace


def filled() -> set[str]:
    """Every cache of the packages that draw with something in it, whoever holds it."""
    found = [each for each in gc.get_objects() if isinstance(each, functools._lru_cache_wrapper)]
    return {
        f"{each.__module__}.{each.__qualname__}"
        for each in found
        if (each.__module__ or "").partition(".")[0] in DRAWING and each.cache_info().currsize
    }


async def test_what_was_remembered_for_a_screen_is_forgotten_with_it(tmp_path: Path) -> None:
    app = KilnApp(Workplace(tmp_path), Traits())
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: app.workbench is not None and app.workbench.feed is not None)
        gc.unfreeze()
        assert {"textual.geometry.Region.intersection", "rich.style.Style._add"} <= filled()
    forget_screen()
    assert filled() == set()
    assert len({id(each) for each in caches()}) > 40
    trim()
