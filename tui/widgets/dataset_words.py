"""What the dataset pane says around its table: titles, the note on the current picture, and what to do without any.

Functions from what catalog and listing hold to words that are safe to show; drawing is the pane's.
"""

from __future__ import annotations

import os

from engine.text import safe_text
from tui.catalog import Catalog
from tui.listing import Listing

Note = tuple[str, str, str]
"""The words, their severity, and shorter ones for where there is little room."""


class ProblemCounts:
    """How many pictures have errors and warnings, counted once for each change of the catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._version = -1
        self._told = ""

    def told(self) -> str:
        """The counts in words; empty when nothing is wrong."""
        if self._version != self._catalog.version:
            self._version = self._catalog.version
            counts = {"error": 0, "warning": 0}
            for row in self._catalog.rows:
                if row.severity and not row.excluded:
                    counts[row.severity] += 1
            words = (f"{number} {word}{'' if number == 1 else 's'}" for word, number in counts.items() if number)
            self._told = ", ".join(words)
        return self._told


def title_of(listing: Listing, hidden_order: bool) -> str:
    """The pane's title: how many pictures, how many are found and marked, and the order where no column shows it."""
    session, total = listing.session, len(listing.catalog.rows)
    if not total:
        return "1 Dataset"
    count = f"{len(listing.rows):,}/{total:,}" if session.filter else f"{total:,}"
    marked = f", {listing.marked:,} marked" if listing.marked else ""
    return f"1 Dataset {count}{marked}{f' by {session.sort}' if hidden_order else ''}"


def note_of(listing: Listing) -> Note:
    """What is wrong with the current picture, else with the dataset."""
    row, catalog = listing.chosen, listing.catalog
    if row is not None and row.severity:
        # The remedy counts most; of a caption the whole error stands under it.
        shorter = f"{row.problem.partition(':')[0]}. {row.hint}"
        return shorter if row.code == "caption" else f"{row.problem}. {row.hint}", row.severity, shorter
    if catalog.error is not None and row is not None:
        error = catalog.error
        return safe_text(f"{error.title}: {error.detail} {error.hint}"), "error", ""
    if row is not None and row.t5 is not None and row.t5 > catalog.t5_limit:
        over = f"{row.t5} T5 tokens; what follows token {catalog.t5_limit} is not read"
        return f"The caption has {over}", "warning", ""
    if catalog.problems:
        found = catalog.problems[0]
        return f"{os.path.basename(found.path)}: {found.message}. {found.hint}", found.severity, ""
    return "", "", ""


def hint_of(catalog: Catalog) -> list[str]:
    """What to do where there is nothing to list."""
    if catalog.state == "empty":
        return ["No dataset is open.", "Set up a run, or start kiln in a folder with pictures."]
    if catalog.error is not None:
        error = catalog.error
        return [safe_text(part) for part in (error.title, error.detail, error.hint) if part]
    if catalog.rows:
        return ["No picture holds these words.", "esc shows all again."]
    dataset = catalog.dataset
    where = safe_text(", ".join(str(folder.path) for folder in dataset.folders)) if dataset else ""
    if catalog.state == "scanning":
        return [f"Looking for pictures in {where}"]
    return [
        f"No pictures in {where}",
        "Copy pictures there (JPEG, PNG, WebP, BMP, TIFF, AVIF); captions are written here or lie beside them. "
        "They show up by themselves.",
    ]
