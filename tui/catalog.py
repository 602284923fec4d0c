"""The dataset as the screen knows it: one row per picture, filled in by a thread while the user already works.

Comes in: the dataset's settings and a picture decoder. Goes out: rows, and a version number that screens poll. Names
come first (a walk of the folders), then stars and captions, then the pictures' sizes, then tokens. The catalog
belongs to the host and outlives screens. Its thread sleeps while no screen looks; :mod:`tui.catalog_load` has the
reading, :mod:`tui.catalog_rows` the rows, :mod:`tui.catalog_thread` the thread.
"""

from __future__ import annotations

import time
from pathlib import Path

from engine.config import CaptionConfig, DatasetConfig, ModelConfig
from engine.dataset.problems import Problem
from engine.dataset.query import Query, query_of
from engine.dataset.sidecar import MAX_STARS, PictureNotes
from engine.dataset.tokens import CLIP_LIMIT, TokenCount
from tui.catalog_load import DatasetReader
from tui.catalog_rows import SORTS, Row, matching
from tui.catalog_thread import WATCHED_S, CatalogThread
from tui.places import is_shipped

__all__ = ["SORTS", "Catalog", "Row"]


class Catalog(CatalogThread):
    """The rows of one dataset at a time. Methods return at once; the work is done in one thread.

    Args:
        decoder: opens pictures; one of the catalog's own is made when None.

    Attributes:
        version: bumped by every change; screens poll it.
        state: ``empty``, ``scanning``, ``ready`` or ``failed``.
        error: why it failed.
        failure: a note about a picture that could not be written; whoever shows it sets it to None.
    """

    clip_limit = CLIP_LIMIT

    @property
    def rows(self) -> list[Row]:
        """All rows in natural order of their names. Another list when pictures came or went, never changed itself."""
        return self._reader.rows if self._reader else []

    @property
    def dataset(self) -> DatasetConfig | None:
        """The settings of the dataset that is open."""
        return self._reader.dataset if self._reader else None

    @property
    def stage(self) -> str:
        """What the thread is reading, with how far it is; empty when it is done."""
        return self._reader.stage if self._reader else ""

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with folders, and with files that are no rows."""
        return self._reader.problems if self._reader else []

    @property
    def t5_limit(self) -> int:
        """Tokens that T5 reads for the model."""
        return self._reader.t5_limit if self._reader else 512

    @property
    def tokenizer_problem(self) -> str:
        """Why there are no token counts; safe to show. Empty when there are, or when it is not known yet."""
        return self._reader.tokenizer_problem if self._reader else ""

    def open(self, dataset: DatasetConfig, model: ModelConfig | None) -> None:
        """Show this dataset in place of what is open; the same one is only looked at again."""
        reader = self._reader
        if reader is not None and (reader.dataset, reader.model) == (dataset, model):
            self.refresh()
            return
        with self._condition:
            self._reader = DatasetReader(dataset, model, self._the_decoder, self._go_on, self._tell)
            self._begin_reading()

    def refresh(self) -> None:
        """Look at the folders again; what is known and did not change is kept."""
        with self._condition:
            if self._reader is not None:
                self._reader.tokenizer_problem = ""
                self._begin_reading()

    def look(self) -> None:
        """Say that a screen shows the rows: changes on disk are looked for while it does. Called at every poll."""
        before, self._watched = self._watched, time.monotonic()
        if self._watched - before > WATCHED_S:
            with self._condition:
                self._condition.notify()

    def index_of(self, path: str) -> int | None:
        """Place of the picture ``path`` in ``rows``."""
        wanted = Path(path)
        return next((at for at, row in enumerate(self.rows) if row.path == wanted), None)

    def query(self, text: str) -> Query:
        """What ``text`` asks of this dataset's pictures; see :mod:`engine.dataset.query`.

        Raises:
            QueryError: it cannot be read.
        """
        captions = self.dataset.captions if self.dataset is not None else CaptionConfig()
        return query_of(text, captions.trigger_word, captions.separator)

    def find(self, text: str, sort: str = "name", descending: bool = False) -> list[Row]:
        """What ``text`` finds.

        Raises:
            QueryError: it cannot be read.
        """
        return matching(self.rows, self.query(text), sort, descending)

    def count(self, row: Row, text: str) -> TokenCount | None:
        """Tokens of ``text`` as the caption of ``row``, trigger word and all; None without tokenizers. Any thread."""
        reader = self._reader
        return reader.count(reader.text_of(text, row.regularization)) if reader else None

    def set_caption(self, row: Row, text: str) -> None:
        """Take up a caption that was written: it shows at once, the thread reads the file and counts."""
        with self._condition:
            row.caption, row.edited = text.strip(), True
            self._edited[row] = None
            self._wake()

    def rate(self, row: Row, stars: int) -> bool:
        """Give ``row`` stars, 0 to 5; as :meth:`note`."""
        return self.note(row, stars=max(0, min(stars, MAX_STARS)) or None)

    def note(self, row: Row, **notes: object) -> bool:
        """Change some of the notes about ``row`` (see :class:`~engine.dataset.sidecar.PictureNotes`; None takes one
        away): they show at once, the thread writes them to the folder's sidecar file.

        False, and nothing is done, for the pictures that are a part of the program. A row of a dataset that is not
        open any more is left as it is.
        """
        if is_shipped(row.path):
            return False
        with self._condition:
            reader = self._reader
            if reader is not None and row in reader.rows:
                row.take_notes(PictureNotes.model_validate({**dict(row.notes), **notes}))
                before = self._noted.get(row, (reader, {}))[1]
                self._noted[row] = (reader, {**before, **notes})
                self._wake()
        return True
