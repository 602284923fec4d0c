"""Pictures of what is wrong with a dataset, and of its balance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from still import SMALL, WIDE, Album, album, app_at, press, still_world, until

from tui.screens.findings import FindingsScreen

__all__ = ["album", "still_world"]

NAMES: dict[str, Any] = {"ids": ["160x45", "80x24"]}


@pytest.mark.parametrize("size", [WIDE, SMALL], **NAMES)
async def test_findings_and_balance(album: Album, size: tuple[int, int]) -> None:
    app = app_at("idle")
    image = Path("image")
    first, second = sorted(image.glob("*.png"))[:2]
    (image / "again.png").write_bytes(first.read_bytes())
    (image / "again.txt").write_text("a zorple again")
    second.with_suffix(".txt").write_text("")
    async with app.run_test(size=size, notifications=True) as pilot:
        await press(pilot, app, "1 C")
        screen = app.screen
        assert isinstance(screen, FindingsScreen)
        await until(pilot, lambda: screen.found is not None and not screen.busy)
        await album.take(pilot, "findings")
        at = next(at for at, line in enumerate(screen.lines) if line.finding.code == "copy")
        screen.query_one("#lines").highlighted = at  # type: ignore[attr-defined]
        await press(pilot, app, "F")
        await album.take(pilot, "question")
        await press(pilot, app, "escape escape b")
        await album.take(pilot, "balance")
