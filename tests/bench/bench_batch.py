"""What changing 5,000 captions at once costs. ``python -m tests.bench.bench_batch [FOLDER]``.

Wanted: a preview while one types, and all captions written within 2 s. How long files take is the disk's to say: with
a folder the same is measured there, without one in memory where there is some.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from engine.dataset.applying import Wanted, apply, redo, undo
from engine.dataset.batch_edits import Operation, edit_of
from engine.dataset.frequencies import Frequencies
from engine.dataset.journal import Journal
from tests.bench.bench_dataset import milliseconds
from tui.batch import Item
from tui.catalog import Row
from tui.widgets.change_list import spans_of

CAPTIONS = 5_000
MEMORY = Path("/dev/shm")

OPERATIONS = {
    "find and replace": Operation(find="alley", text="street"),
    "the same as an expression": Operation(find=r"\balle(y)\b", text=r"stree\1", regex=True),
    "sort tags": Operation("sort"),
}


def texts() -> dict[Path, str]:
    """Captions of about 30 words."""
    moods = ("smiling", "serious", "laughing", "looking away")
    return {
        Path(f"{number:04d}.txt"): (
            f"ohwx woman, candid photo number {number}, standing in a narrow alley in Lisbon at dusk, "
            f"{moods[number % 4]}, wearing a blue coat, soft light from the left, shallow depth of field"
        )
        for number in range(CAPTIONS)
    }


def writing(place: Path) -> list[tuple[str, float]]:
    """Milliseconds of a batch, its undo and redo on a disk."""
    folder = Path(tempfile.mkdtemp(dir=place))
    try:
        edit = edit_of(OPERATIONS["find and replace"])
        wanted = []
        for name, text in texts().items():
            (folder / name).write_text(text + "\n")
            wanted.append(Wanted(folder / name, text, edit(text)))
        journal = Journal(folder.with_name(folder.name + ".undo"))
        figures = []
        for what, work in (
            ("written", lambda: apply("Replace", wanted, journal)),
            ("undone", lambda: undo(journal)),
            ("done again", lambda: redo(journal)),
        ):
            start = time.perf_counter()
            outcome = work()
            figures.append((f"{what}, on {place}", (time.perf_counter() - start) * 1000))
            assert outcome is not None and len(outcome.done) == CAPTIONS
        start = time.perf_counter()
        assert Journal(journal.path).undoable() is not None
        figures.append(("journal opened after a restart", (time.perf_counter() - start) * 1000))
        return figures
    finally:
        shutil.rmtree(folder)
        folder.with_name(folder.name + ".undo").unlink(missing_ok=True)


def report(place: Path | None = None) -> str:
    """A Markdown table of the figures."""
    known = texts()
    figures = []
    for name, operation in OPERATIONS.items():
        edit = edit_of(operation)
        figures.append((f"preview: {name}", milliseconds(lambda e=edit: [e(text) for text in known.values()], 5)))
    row = Row(Path("a.png"), "a.png", Path("a.txt"))
    edit = edit_of(OPERATIONS["find and replace"])
    some = [Item(row, text, edit(text)) for text in list(known.values())[:40]]

    def lines() -> None:
        spans_of.cache_clear()
        for item in some:
            spans_of(item.old, item.new)

    figures.append(("differences of 40 lines in sight", milliseconds(lines)))
    start = time.perf_counter()
    frequencies = Frequencies()
    frequencies.take(dict(known))
    figures.append(("words in a row counted", (time.perf_counter() - start) * 1000))
    figures.append(("the list of those in two captions or more", milliseconds(lambda: frequencies.most(fewest=2), 5)))
    figures += writing(place or (MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())))
    rows = [f"| {CAPTIONS:,} captions | ms |", "|---|---|"]
    return "\n".join(rows + [f"| {what} | {spent:.1f} |" for what, spent in figures])


if __name__ == "__main__":
    print(report(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
