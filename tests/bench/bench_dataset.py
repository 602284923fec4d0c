"""What a large dataset costs the screen: opening, finding, redrawing. ``python -m tests.bench.bench_dataset``.

Wanted for 5,000 pictures: names in sight within a second, a filter within 50 ms, a redraw within 5 ms. The pictures
are tiny; their headers are what is read, so real ones cost the same once the disk has them at hand.
"""

from __future__ import annotations

import asyncio
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from statistics import median

from textual.app import App, ComposeResult

import tui.screens
from engine.config import DatasetConfig, ModelConfig
from profiles.starters import pocket_model
from tui.catalog import Catalog
from tui.session import SessionState
from tui.widgets.dataset import DatasetPane

PICTURES = 5_000
FILTERS = ("", "smiling", "alley -smiling 12", '"number 12" lisbon', "e")


class PaneApp(App[None]):
    """The pane alone."""

    CSS_PATH = Path(tui.screens.__file__).parent / "dataset.tcss"

    def __init__(self, catalog: Catalog) -> None:
        super().__init__()
        self.animation_level = "none"
        self.catalog = catalog

    def compose(self) -> ComposeResult:
        """The pane."""
        yield DatasetPane(self.catalog, SessionState())


def png() -> bytes:
    """A picture of 8 x 8 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(8 * 25))) + chunk(b"IEND", b"")


def make(folder: Path) -> None:
    """The pictures with a caption each."""
    data = png()
    for number in range(PICTURES):
        (folder / f"img_{number:04d}.png").write_bytes(data)
        mood = "smiling" if number % 7 == 0 else "serious"
        text = f"ohwx woman, candid photo number {number}, standing in a narrow alley in Lisbon at dusk, {mood}"
        (folder / f"img_{number:04d}.txt").write_text(text)


def milliseconds(work: Callable[[], object], repeats: int = 15) -> float:
    """Median wall-clock time of ``work``."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1000)
    return median(times)


def opening(catalog: Catalog, folder: Path) -> list[tuple[str, float]]:
    """Milliseconds until each part is there."""
    start = time.perf_counter()
    dataset = DatasetConfig.model_validate({"folders": [{"path": folder}]})
    catalog.open(dataset, ModelConfig.model_validate(pocket_model()))
    parts: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("names", lambda: len(catalog.rows) == PICTURES),
        ("captions", lambda: bool(catalog.rows) and catalog.rows[-1].caption is not None),
        ("sizes and buckets", lambda: catalog.rows[-1].bucket is not None),
        ("tokens (pocket tokenizers)", lambda: catalog.state == "ready"),
    )
    figures = []
    for name, there in parts:
        while not there():
            time.sleep(0.001)
        figures.append((f"open: {name}", (time.perf_counter() - start) * 1000))
    return figures


async def drawing(catalog: Catalog) -> list[tuple[str, float]]:
    """Milliseconds of the pane's own work on the screen's thread."""
    app = PaneApp(catalog)
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.pause(0.5)
        pane = app.query_one(DatasetPane)
        table = pane.table

        def filtered() -> None:
            pane.session.filter = "alley -smiling 1"
            pane.listing.find()
            pane.show()

        def redraw() -> None:
            for y in range(table.size.height):
                table.render_line(y)

        return [
            ("filter, with all that the pane does for it", milliseconds(filtered)),
            (f"redraw of the table, {table.size.width} x {table.size.height} cells", milliseconds(redraw)),
            ("cursor one row on", milliseconds(lambda: pane.step(1))),
            ("poll without news", milliseconds(pane.poll)),
        ]


def report() -> str:
    """A Markdown table of the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        catalog = Catalog()
        catalog.find("")
        figures = opening(catalog, folder)
        for words in FILTERS:
            figures.append((f"find {words!r}", milliseconds(lambda w=words: catalog.find(w))))
        for sort in ("size", "tokens", "state"):
            figures.append((f"find everything by {sort}", milliseconds(lambda s=sort: catalog.find("", s, True))))
        start = time.perf_counter()
        catalog.refresh()
        while catalog.state != "ready":
            time.sleep(0.001)
        figures.append(("look at everything again", (time.perf_counter() - start) * 1000))
        figures += asyncio.run(drawing(catalog))
        catalog.close()
    lines = [f"| {PICTURES:,} pictures | ms |", "|---|---|"]
    return "\n".join(lines + [f"| {what} | {spent:.1f} |" for what, spent in figures])


if __name__ == "__main__":
    print(report())
