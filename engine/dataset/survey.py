"""Decoding every picture of a set once, on several processors, for all that only pixels tell.

What is known of a picture from before is not decoded again: its measures are kept in the cache. A picture that does
not decode is an error of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from engine.config import DatasetConfig
from engine.dataset.decoder import Decoder
from engine.dataset.problems import Problem, problem
from engine.dataset.quality import PATCH, SIDE, Measures, measure
from engine.dataset.quality_store import Kept, QualityStore, store_for
from engine.errors import DatasetError

Progress = Callable[[int, int], None]

MOST_DECODERS = 4
_CLEAR = 0.01
"""Share of a picture that may be transparent without a word."""


class Stopped(Exception):
    """Whoever asked does not want to know any more."""


class Surveyor:
    """Looks at the pictures of a dataset.

    Args:
        config: the dataset's settings.
        cache: folder in which measures are kept; None keeps none.
        stop: asked between pictures; True ends the work.
    """

    def __init__(
        self, config: DatasetConfig, cache: Path | None = None, stop: Callable[[], bool] = lambda: False
    ) -> None:
        self._config, self._cache, self._stop = config, cache, stop
        self._stores: dict[Path, QualityStore] = {}
        self._lock = threading.Lock()

    def survey(self, paths: Sequence[Path], progress: Progress | None = None) -> Iterator[Kept | DatasetError]:
        """What each picture shows, in order; refusals as values.

        Raises:
            Stopped: it was asked to stop.
        """
        workers = min(MOST_DECODERS, os.cpu_count() or 1, max(1, len(paths)))
        with ExitStack() as stack:
            decoders = [stack.enter_context(Decoder(self._config.max_megapixels)) for _ in range(workers)]
            pool = stack.enter_context(ThreadPoolExecutor(workers))

            def seen(job: tuple[int, Path]) -> Kept | DatasetError:
                try:
                    return self._seen(job[1], decoders[job[0] % workers])
                except DatasetError as err:
                    return err

            try:
                for done, outcome in enumerate(pool.map(seen, enumerate(paths)), start=1):
                    yield outcome
                    if progress is not None:
                        progress(done, len(paths))
            finally:
                self._save(paths)

    def _seen(self, path: Path, decoder: Decoder) -> Kept | DatasetError:
        if self._stop():
            raise Stopped
        with self._lock:
            store = self._store_of(path)
            if (known := store.find(path)) is not None:
                return known
            if (known := store.find_moved(path)) is not None:
                return known
        measures = measure(decoder.look(path, SIDE, PATCH, self._config.background))
        with self._lock:
            kept = store.add(path, measures)
            if self._cache is not None and store.due:
                store.save()
            return kept

    def _store_of(self, path: Path) -> QualityStore:
        folder = next((each.path for each in self._config.folders if path.is_relative_to(each.path)), path.parent)
        if folder not in self._stores:
            self._stores[folder] = store_for(folder, self._cache) if self._cache else QualityStore(Path(os.devnull))
        return self._stores[folder]

    def _save(self, paths: Sequence[Path]) -> None:
        if self._cache is not None:
            with self._lock:
                for store in self._stores.values():
                    store.save([path for path in paths if self._store_of(path) is store])


def decoding_problems(path: Path, seen: Measures, config: DatasetConfig) -> Iterator[Problem]:
    """What only a decode tells of a picture that can be trained on; transparency that is a mask is meant."""
    if seen.transparent > _CLEAR and config.masks.source != "alpha":
        message = f"Picture: {seen.transparent:.0%} of it is transparent and becomes {config.background}"
        hint = "Set dataset.background, or export it without transparency."
        yield problem(path, "transparent", "warning", message, hint, "convert")
    if seen.cmyk:
        message = "Its colours are inks (CMYK), converted here without their profile"
        yield problem(path, "cmyk", "warning", message, "Compare it with the original; export it as RGB.", "convert")
    if seen.turned > 1:
        message = "Its EXIF data turn it; it is trained on upright, some other programs show it lying"
        yield problem(path, "turned", "note", message, "Nothing, if it stands upright in the preview.")
