"""The catalog's thread: serves what the user changed, reads what is wanted, looks for changes while a screen does.

One thread for all reading and writing of a dataset, so nothing in a reader needs a lock; what it shares with screens
is guarded by one condition. :class:`tui.catalog.Catalog` is what screens see of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from engine.dataset.decoder import Decoder
from engine.dataset.problems import Problem
from engine.errors import DatasetError, EngineError
from tui.catalog_load import DatasetReader
from tui.catalog_quality import CatalogQuality
from tui.catalog_rows import Row

LOOK_S = 3.0
"""Time between two looks at the folders while a screen shows them."""

SHARE, MOST_S = 20, 30.0
"""After reading that took long the next look waits so many times as long, but no more than so many seconds."""

WATCHED_S = 5.0
"""A screen that did not poll for so long is gone."""

_BROKEN = (
    "Reading the dataset broke off",
    "a fault in lorakiln; the log of this work folder has the traceback",
    "R in the dataset pane tries again.",
)


class CatalogThread:
    """What the catalog does behind the screen's back; the attributes are described at the catalog."""

    def __init__(self, decoder: Decoder | None = None, cache: Path | None = None) -> None:
        self.version = 0
        self.state = "empty"
        self.error: EngineError | None = None
        self.failure: EngineError | None = None
        self.reshaped: set[str] = set()
        self._decoder = decoder
        self._own_decoder = decoder is None
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._reader: DatasetReader | None = None
        self._closed = False
        self._read_wanted = False
        self._noted: dict[Row, tuple[DatasetReader, dict[str, object]]] = {}
        """With the reader whose row it is: another dataset may be open when the thread comes to it."""
        self._edited: dict[Row, None] = {}
        self._watched = 0.0
        self._look_due = 0.0
        self._quality = CatalogQuality(cache) if cache is not None else None

    def close(self) -> None:
        """Write what is not written yet and end the thread."""
        with self._condition:
            self._closed = True
            self._condition.notify()
            thread = self._thread
        if thread is not None:
            thread.join(timeout=10.0)
        if self._own_decoder and self._decoder is not None:
            self._decoder.close()

    def _begin_reading(self) -> None:
        self.state, self.error = "scanning", None
        self._read_wanted = True
        self._wake()

    def _wake(self) -> None:
        """Have the thread see what is new; the condition is held."""
        self.version += 1
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="catalog", daemon=True)
            self._thread.start()
        self._condition.notify()

    def _the_decoder(self) -> Decoder:
        if self._decoder is None:
            self._decoder = Decoder()
        if self._reader is not None:
            self._decoder.admit(self._reader.dataset.max_megapixels)
        return self._decoder

    def _tell(self) -> None:
        with self._condition:
            self.version += 1

    def _work(self) -> None:
        """The thread. One that ends by a fault of ours says so; the traceback goes where Python's go."""
        try:
            while (job := self._next()) is not None:
                job()
        finally:
            with self._condition:
                self._thread = None
                if not self._closed:
                    self.state, self.error = "failed", DatasetError(*_BROKEN)
                    self.version += 1

    def _next(self) -> Callable[[], object] | None:
        """Wait for something to do; None is the end."""
        with self._condition:
            while (job := self._job()) is None and not self._closed:
                self._condition.wait(self._idle_s())
            return job

    def _job(self) -> Callable[[], object] | None:
        """What there is to do; the condition is held."""
        if self._noted or self._edited:
            return self._serve
        if self._closed or self._reader is None:
            return None
        if self._read_wanted:
            return self._read
        if (idle := self._idle_s()) == 0.0:
            return self._look
        if idle is None or self._quality is None or self.state != "ready":
            return None
        return self._measure if self._quality.wants(self._reader) else None

    def _idle_s(self) -> float | None:
        """Time until the next look is due; None while no screen looks."""
        now = time.monotonic()
        if self._reader is None or now - self._watched > WATCHED_S:
            return None
        return max(0.0, self._look_due - now)

    def _go_on(self) -> bool:
        """Between two pieces of reading: serve the user; stop where other reading is wanted."""
        if self._noted or self._edited:
            self._serve()
        return not (self._closed or self._read_wanted)

    def _serve(self) -> None:
        """Write the notes, take up the edits."""
        with self._condition:
            reader = self._reader
            noted, self._noted = self._noted, {}
            edited, self._edited = self._edited, {}
        if reader is None:
            return
        for owner in dict.fromkeys(reader for reader, _ in noted.values()):
            try:
                owner.note((row, notes) for row, (its, notes) in noted.items() if its is owner)
            except EngineError as err:
                self.failure = err
        try:
            reader.reread(list(edited))
        except EngineError:  # reading all of it says what is wrong
            self._read_wanted = True
        self._tell()

    def _read(self) -> None:
        with self._condition:
            reader, self._read_wanted = self._reader, False
        assert reader is not None
        began = time.monotonic()
        error: EngineError | None = None
        try:
            reader.read()
        except EngineError as err:
            error = err
        if error is None and not reader.rows:
            error = next((_as_error(found) for found in reader.problems if found.severity == "error"), None)
        with self._condition:
            spent = time.monotonic() - began
            self._look_due = time.monotonic() + min(max(LOOK_S, SHARE * spent), MOST_S)
            if not self._read_wanted:  # by another opening meanwhile
                self.state, self.error = "failed" if error else "ready", error
                self.version += 1

    def _look(self) -> None:
        reader = self._reader
        assert reader is not None
        self._look_due = time.monotonic() + LOOK_S
        try:
            changed = reader.look()
        except EngineError:  # reading all of it says what is wrong
            changed = True
        if changed or self.error is not None:
            self._read_wanted = True

    def _measure(self) -> None:
        """A portion of what pixels tell, when nothing else is to be done."""
        reader = self._reader
        if reader is not None and self._quality is not None and self._quality.work(reader, self._the_decoder()):
            self._tell()


def _as_error(found: Problem) -> EngineError:
    return DatasetError(found.message, found.path, found.hint)
