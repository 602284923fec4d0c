"""Reading one dataset for the screen, in the catalog's thread: names, captions, stars, sizes, tokens, changes.

Every part looks first whether a file is as it was read last, so reading everything again costs little where nothing
changed. Between small pieces of work the reader asks ``go_on``: there the catalog serves the user's own changes, and
says when another dataset is wanted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from engine.config import DatasetConfig, ModelConfig
from engine.dataset.captions import final_caption
from engine.dataset.decoder import Decoder
from engine.dataset.masks import folder_of
from engine.dataset.problems import Problem, from_error
from engine.dataset.scan import each_pair
from engine.dataset.sidecar import SIDECAR_NAME, PictureNotes, Sidecar, load_sidecar, place_of
from engine.dataset.tokens import CLIP_LIMIT, Measured, Tokenizer, count_tokens, load_tokenizers, measure, t5_limit
from engine.errors import DatasetError, EngineError, ModelFileError
from tui.catalog_rows import Mark, Row, mark_of, prefixes_of, read_caption_of, row_of, take_info, take_notes

TELL_S = 0.15
"""Least time between two changes of the version while much is read."""

CHUNK = 64

GROWTH = 1.5
"""Rows are shown as they come, each time so many times as many: whoever shows another list looks all through it."""

SLICE = 300
"""Rows whose files are looked at in one look, for edits that leave the folder's own time as it was."""

CLOCK_NS = 20_000_000
"""How much a file system's clock may be behind ours."""


class DatasetReader:
    """Rows of one dataset, read by one thread at a time.

    Args:
        dataset: what to read.
        model: whose tokenizers count; without one they are looked for in the usual places.
        decoder: gives it, when the first picture's header is wanted.
        go_on: called between pieces of work with this reader; False ends the work.
        tell: called after every change that a screen should see.
    """

    def __init__(
        self,
        dataset: DatasetConfig,
        model: ModelConfig | None,
        decoder: Callable[[], Decoder],
        go_on: Callable[[], bool],
        tell: Callable[[], None],
    ) -> None:
        self.dataset, self.model = dataset, model
        self.rows: list[Row] = []
        self.problems: list[Problem] = []
        self.stage = "looking for pictures"
        self.t5_limit = 512
        self.tokenizers: tuple[Tokenizer, Tokenizer] | None = None
        self.tokenizer_problem = ""
        self._decoder, self._go_on, self._tell = decoder, go_on, tell
        still = {"shuffle": False, "dropout": 0.0, "tag_dropout": 0.0, "wildcards": False}
        self._still = dataset.captions.model_copy(update=still)
        self._told = 0.0
        self._directories: dict[str, int] = {}
        self._sidecars: dict[Path, Sidecar | None] = {}
        self._sidecar_marks: dict[Path, Mark] = {}
        self._next_slice = 0
        self._listed = False
        """All pictures are among the rows: until then the rows only grow."""
        self.changes = 0
        """Bumped when pictures came, went or changed."""

    def read(self) -> None:
        """Read all that is not known yet; the names first.

        Raises:
            ConfigError: the bucket settings allow no bucket.
            DatasetError: the pictures' decoder does not start.
        """
        if not self._walk():
            return
        self._read_notes()
        self._tell()
        self._read_captions(self.rows)
        self._read_pictures(self.rows)
        self._count(self.rows)
        self.stage = ""
        self._tell()

    def look(self) -> bool:
        """Whether a folder changed; edits in place are taken up at once, a part of the rows at each look."""
        if any(_changed_ns(folder) != seen for folder, seen in self._directories.items()):
            return True
        some = self.rows[self._next_slice : self._next_slice + SLICE]
        self._next_slice = self._next_slice + SLICE if len(some) == SLICE else 0
        if any(mark_of(row.path) != row.picture_mark for row in some):
            self._read_pictures(some)
        self.reread(some)
        self.stage = ""
        return False

    def reread(self, rows: Sequence[Row]) -> None:
        """Read the captions of ``rows`` again where they changed, and count their tokens."""
        changed = [row for row in rows if read_caption_of(row, self.dataset)]
        if changed:
            self._count(changed)
            self._tell()

    def note(self, changes: Iterable[tuple[Row, Mapping[str, object]]]) -> None:
        """Write notes about pictures to the folders' sidecar files.

        Raises:
            EngineError: one could not be written; its rows show again what stands there. The others are written.
        """
        failures: list[EngineError] = []
        by_folder: dict[Path, list[tuple[Row, Mapping[str, object]]]] = {}
        for row, notes in changes:
            by_folder.setdefault(self.folder_of(row.path), []).append((row, notes))
        for folder, noted in by_folder.items():
            try:
                sidecar = load_sidecar(folder)
                for row, notes in noted:
                    sidecar = sidecar.with_notes(place_of(row.path, folder), **notes)
                self._sidecars[folder] = sidecar.save(folder)
                self._sidecar_marks[folder] = mark_of(folder / SIDECAR_NAME)
            except EngineError as err:
                failures.append(err)
            now = self._sidecars.get(folder) or Sidecar()
            for row, _ in noted:
                take_notes(row, now.of(place_of(row.path, folder)), self.dataset)
        if failures:
            raise failures[0]

    def text_of(self, caption: str, regularization: bool) -> str:
        """The text that is trained on, without what is drawn anew for each step."""
        return final_caption(caption, self._still, 0, 0, 0, regularization)

    def measure(self, caption: str, regularization: bool) -> Measured | None:
        """What a caption costs and where it is cut; None where there are no tokenizers (yet)."""
        if not self.tokenizers:
            return None
        return measure(caption, self.text_of(caption, regularization), *self.tokenizers, (CLIP_LIMIT, self.t5_limit))

    def _walk(self) -> bool:
        """List the pictures; False where the catalog wanted to stop before all were."""
        began = time.time_ns() - CLOCK_NS
        problems: list[Problem] = []
        directories = [str(folder.path) for folder in self.dataset.folders]
        known = {row.path: row for row in self.rows}
        prefixes = prefixes_of([folder.path for folder in self.dataset.folders])
        rows: list[Row] = []
        for pair in each_pair(self.dataset, problems, directories, self._seen):
            rows.append(row_of(pair, self.dataset, known.get(pair.path), prefixes.get(self.folder_of(pair.path), "")))
            if not len(rows) % CHUNK and not self._listing(rows):
                return False
        # A folder that changed while it was walked counts as not seen.
        times = {folder: _changed_ns(folder) for folder in directories}
        self._directories = {folder: changed if changed < began else -1 for folder, changed in times.items()}
        self.problems, self._listed = problems, True
        if rows != self.rows:
            self.rows = rows
            self.changes += 1
        return True

    def _seen(self, entries: int) -> None:
        """Say how far the walk is; rows come when it is through."""
        self.stage = f"looking for pictures, {entries:,} files"
        self._tell_soon()

    def _listing(self, rows: list[Row]) -> bool:
        """Show the first of the rows while the others come; False where the catalog wants to stop."""
        if self._listed:  # those that are there stay until it is known which are
            return self._go_on()
        self.stage = f"listing pictures {len(rows):,}"
        if len(rows) >= GROWTH * len(self.rows) and self._due:
            self.rows = rows.copy()
        self._tell_soon()
        return self._go_on()

    def _read_notes(self) -> None:
        for folder in dict.fromkeys(folder.path for folder in self.dataset.folders):
            mark = mark_of(folder / SIDECAR_NAME)
            if folder in self._sidecars and mark == self._sidecar_marks.get(folder):
                continue
            self._sidecar_marks[folder] = mark
            try:
                self._sidecars[folder] = load_sidecar(folder)
            except DatasetError as err:
                self._sidecars[folder] = None
                self.problems.append(from_error(folder / SIDECAR_NAME, "sidecar", err))
        for row in self.rows:
            folder = self.folder_of(row.path)
            sidecar = self._sidecars.get(folder)
            known = sidecar is not None and sidecar.pictures
            notes = sidecar.of(place_of(row.path, folder)) if sidecar and known else PictureNotes()
            take_notes(row, notes, self.dataset)

    def _read_captions(self, rows: Sequence[Row]) -> None:
        for some in self._pieces(rows, "reading captions"):
            for row in some:
                read_caption_of(row, self.dataset)

    def _read_pictures(self, rows: Sequence[Row]) -> None:
        marks = {row: mark_of(row.path) for row in rows}
        changed = [row for row in rows if marks[row] != row.picture_mark]
        for some in self._pieces(changed, "reading sizes"):
            for row, outcome in zip(some, self._decoder().probe_many([row.path for row in some]), strict=True):
                take_info(row, outcome, self.dataset)
                row.picture_mark = marks[row]
        self.changes += bool(changed)

    def _count(self, rows: Sequence[Row]) -> None:
        wanted = [
            (row, text)
            for row in rows
            if row.caption is not None and (text := self.text_of(row.caption, row.regularization)) != row.counted
        ]
        for row in rows:
            if row.caption is None:
                row.clip = row.t5 = row.counted = None
        if not wanted or not self._ready_to_count():
            return
        assert self.tokenizers is not None
        texts = dict(wanted)
        for some in self._pieces([row for row, _ in wanted], "counting tokens"):
            for row, count in zip(some, count_tokens([texts[row] for row in some], *self.tokenizers), strict=True):
                row.clip, row.t5, row.counted = count.clip, count.t5, texts[row]

    def _ready_to_count(self) -> bool:
        """Load the tokenizers once; never over the network, which is the run's to decide."""
        if self.tokenizers is None and not self.tokenizer_problem:
            model = self.model or _nowhere()
            try:
                self.t5_limit = t5_limit(model) if self.model else 512
            except ModelFileError:
                self.t5_limit = model.t5_length or 512
            try:
                self.tokenizers = load_tokenizers(model)
            except ModelFileError as err:
                self.tokenizer_problem = f"{err.title}: {err.detail}" if self.model else "no tokenizers found"
        return self.tokenizers is not None

    def _pieces(self, rows: Sequence[Row], stage: str) -> Iterator[Sequence[Row]]:
        """``rows`` in pieces, until the catalog wants to stop; the screen is told how far it is."""
        for start in range(0, len(rows), CHUNK):
            if not self._go_on():
                return
            if len(rows) > CHUNK:
                self.stage = f"{stage} {start:,}/{len(rows):,}"
            yield rows[start : start + CHUNK]
            self._tell_soon()

    @property
    def _due(self) -> bool:
        return time.monotonic() - self._told > TELL_S

    def _tell_soon(self) -> None:
        """Have the screen look, if that is not long enough ago."""
        if self._due:
            self._told = time.monotonic()
            self._tell()

    def folder_of(self, picture: Path) -> Path:
        """The dataset's folder that a picture belongs to."""
        folders = self.dataset.folders
        return folders[0].path if len(folders) == 1 else folder_of(picture, folders)


def _changed_ns(folder: str) -> int:
    """When something was added to a folder, or taken from it; 0 where there is none."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def _nowhere() -> ModelConfig:
    """Model files that lead the search for tokenizers to the usual places only."""
    path = Path("/nonexistent/folder/file")
    return ModelConfig(transformer=path, autoencoder=path, clip_l=path, t5=path)
