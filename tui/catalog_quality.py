"""How sharp a dataset's pictures are, and which are alike: filled into the rows from what was measured before.

Worked off by the catalog's thread in small portions while nothing else waits and a screen shows the rows. Pictures
that were never looked at are measured here only in a small dataset; in a large one the findings screen and
`kiln dataset check` do that, and what they measured is taken up.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

from engine.dataset.decoder import Decoder
from engine.dataset.quality import PATCH, SIDE, measure
from engine.dataset.quality_check import percentiles, twins
from engine.dataset.quality_store import Kept, QualityStore, store_for
from engine.errors import DatasetError
from tui.catalog_load import DatasetReader
from tui.catalog_rows import Row

MOST_UNKNOWN = 300
"""Pictures that are measured unasked: half a minute of one core."""

PORTION = 4
"""Pictures decoded between two looks at what else there is to do."""

FILL_S = 2.0
"""Time between two fillings of the rows while pictures are measured."""


class CatalogQuality:
    """Fills ``sharp`` and ``twin`` of the rows of one reader at a time.

    Args:
        cache: the folder in which measures are kept.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._state: tuple[DatasetReader, int] | None = None
        self._stores: dict[Path, QualityStore] = {}
        self._known: dict[Row, Kept] = {}
        self._pending: deque[Row] = deque()
        self._filled = 0.0

    def wants(self, reader: DatasetReader) -> bool:
        """Whether there is something to do for this reader's rows."""
        return bool(self._pending) or self._state != (reader, reader.changes)

    def forget(self) -> None:
        """Somebody else measured pictures: read again what is kept."""
        self._state = None

    def work(self, reader: DatasetReader, decoder: Decoder) -> bool:
        """Do a portion; returns whether rows changed."""
        if self._state != (reader, reader.changes):
            return self._begin(reader)
        for _ in range(min(PORTION, len(self._pending))):
            row = self._pending.popleft()
            store = self._store_of(reader, row)
            try:
                known = store.find_moved(row.path)
                if known is None:
                    seen = decoder.look(row.path, SIDE, PATCH, reader.dataset.background)
                    known = store.add(row.path, measure(seen))
                self._known[row] = known
            except DatasetError:
                continue  # its row tells why
        if self._pending and time.monotonic() - self._filled < FILL_S:
            return False
        if not self._pending:
            for store in self._stores.values():
                store.save()
        return self._fill()

    def _begin(self, reader: DatasetReader) -> bool:
        self._state = (reader, reader.changes)
        self._stores.clear()
        self._known.clear()
        unknown = []
        for row in reader.rows:
            if not row.width:
                continue
            known = self._store_of(reader, row).find(row.path)
            if known is not None:
                self._known[row] = known
            else:
                row.sharp, row.twin = None, 0
                unknown.append(row)
        self._pending = deque(unknown if len(unknown) <= MOST_UNKNOWN else ())
        return self._fill()

    def _fill(self) -> bool:
        """Give every known row its place among all that are known."""
        self._filled = time.monotonic()
        rows, kept = list(self._known), list(self._known.values())
        values = list(zip(percentiles([each.measures for each in kept]), twins(kept), strict=True))
        changed = any((row.sharp, row.twin) != value for row, value in zip(rows, values, strict=True))
        for row, (sharp, twin) in zip(rows, values, strict=True):
            row.sharp, row.twin = sharp, twin
        return changed

    def _store_of(self, reader: DatasetReader, row: Row) -> QualityStore:
        folder = reader.folder_of(row.path)
        if folder not in self._stores:
            self._stores[folder] = store_for(folder, self._cache)
        return self._stores[folder]
