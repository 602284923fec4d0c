"""Browsing at size: 100,000 pictures listed, filtered and sorted; row changes on a real screen, and their memory.

``python -m tests.bench.bench_browse``. Wanted: a row change to its thumbnail, once cached, within 100 ms, and memory
that does not grow over 1,000 row changes. Rows are made up: what is measured is the screen's own work.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from engine.dataset.query import haystack, query_of
from profiles.starters import demo_config
from tests.bench.bench_ui import cpu_ms
from tui.app import KilnApp
from tui.catalog_rows import Row, matching
from tui.listing import Listing
from tui.session import SessionState
from tui.terminal.traits import Traits
from tui.widgets.preview import Preview
from tui.workplace import Workplace

MANY = 100_000
FILTERS = (
    "smiling", "alley -smiling 12", "tag:smil*", "tags:>3 tag:sm*g", "tokens:>77 OR chars:<100",
    "res:<1024 ar:1:1", "NOT (stars:>=3 OR dup:) empty:no", "missing:trigger",
)  # fmt: skip
PHOTOS, CHANGES = 40, 1000


class MadeCatalog:
    """As much of a catalog as a listing asks for."""

    state, clip_limit, t5_limit = "ready", 77, 512

    def __init__(self, count: int) -> None:
        self.rows = [made_row(number) for number in range(count)]

    def query(self, text: str) -> Any:
        """The filter, with a trigger word."""
        return query_of(text, "ohwx")


def made_row(number: int) -> Row:
    """A row with all that is known of a picture."""
    name = f"portraits/img_{number:06d}.jpg"
    mood = "smiling" if number % 7 == 0 else "serious"
    text = f"ohwx woman, candid photo number {number}, standing in a narrow alley in Lisbon at dusk, {mood}"
    return Row(
        Path("/data") / name, name, Path(f"/data/{name}.txt"), text, 768 + number % 512, 1024, (832, 1216),
        60 + number % 40, 70 + number % 50, number % 6, haystack=haystack(name, text), picture_mark=(1, 1),
    )  # fmt: skip


def listed(count: int) -> list[tuple[str, float]]:
    """CPU milliseconds of finding and ordering."""
    made: Any = MadeCatalog(count)
    listing = Listing(made, SessionState())
    listing.find()
    figures = []
    for words in FILTERS:
        query = made.query(words)
        found = len(matching(made.rows, query))
        figures.append((f"{count:,}: {words} ({found:,} found)", cpu_ms(lambda q=query: matching(made.rows, q), 5)))
    for sort in ("size", "tokens", "state"):
        query = made.query("")
        figures.append((f"{count:,}: by {sort}", cpu_ms(lambda s=sort, q=query: matching(made.rows, q, s, True), 5)))
    listing.go(count - 1)
    figures.append((f"{count:,}: list anew, cursor at the end", cpu_ms(lambda: listing.find(keep=True), 5)))
    figures.append(
        (f"{count:,}: mark all, ask for the scope", cpu_ms(lambda: (listing.mark_found(), listing.scope())))
    )
    return figures


def photos(folder: Path) -> None:
    """Pictures of a megapixel, with captions."""
    from PIL import Image

    rng = np.random.default_rng(1)
    for number in range(PHOTOS):
        small = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(small).resize((1024, 768)).save(folder / f"photo_{number:02d}.jpg", quality=90)
        (folder / f"photo_{number:02d}.txt").write_text(f"a photo, number {number}")


def resident_mb() -> float:
    """What this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def changes(work: Path) -> list[tuple[str, float]]:
    """Row changes on the workbench: from the key to the picture, and what they leave in memory."""
    folder = work / "photos"
    folder.mkdir()
    photos(folder)
    config = demo_config(work)
    place = Workplace(work)
    dataset = config.dataset.model_copy(
        update={"folders": (config.dataset.folders[0].model_copy(update={"path": folder}),)}
    )
    place.config = config.model_copy(update={"dataset": dataset})
    app = KilnApp(place, Traits(utf8=True))
    async with app.run_test(size=(160, 45)) as pilot:
        while app.workbench is None or app.workbench.feed is None or place.catalog.state != "ready":
            await pilot.pause(0.05)
        app.workbench.go_to("dataset")
        preview = app.workbench.query_one(Preview)
        spent = []
        for _ in range(3):  # the first round fills the cache, the last one counts
            await pilot.press("g")
            await pilot.pause(0.5)
            spent = [await change(app, preview) for _ in range(PHOTOS - 1)]
        before = 0.0
        for number in range(CHANGES + 200):
            if number == 200:
                before = resident_mb()
            await pilot.press("j" if number // (PHOTOS - 1) % 2 == 0 else "k")
        grown = resident_mb() - before
    place.close()
    return [
        ("row change to its cached thumbnail, median ms", median(spent)),
        (f"MB more after {CHANGES} of them", grown),
    ]


async def change(app: KilnApp, preview: Preview) -> float:
    """Milliseconds from going one row on until its picture is the one drawn."""
    assert app.workbench is not None
    pane = app.workbench._dataset
    await asyncio.sleep(0.3)  # one press, not a key that is held
    start = time.perf_counter()
    pane.step(1)
    path = pane.chosen.path if pane.chosen else None
    while (
        preview._wanted is None
        or preview._wanted.path != path
        or preview._loading
        or (preview._kept.get(preview._wanted) is not preview._drawn)
    ):
        await asyncio.sleep(0.001)
    return (time.perf_counter() - start) * 1000


def report() -> str:
    """Markdown tables of the figures."""
    lines = ["| Listing, made-up rows | CPU ms |", "|---|---|"]
    lines += [f"| {what} | {spent:.1f} |" for what, spent in [*listed(5_000), *listed(MANY)]]
    with tempfile.TemporaryDirectory() as work:
        lines += ["", "| Row changes, wall clock | |", "|---|---|"]
        lines += [f"| {what} | {spent:.1f} |" for what, spent in asyncio.run(changes(Path(work)))]
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
