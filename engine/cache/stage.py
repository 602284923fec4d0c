"""What caching pictures and caching captions share: check what stands, do the rest, tell how far it is, stop.

Stands alone so that both stages verify, report and stop in the same way.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from engine.cache.store import Store
from engine.errors import CacheError

ProgressFn = Callable[[int, int, str], None]
"""Told (done, total, safe name of the entry) as a stage advances."""

StopFn = Callable[[], bool]
"""Asked between entries; True ends the stage early."""


class Stage:
    """One pass over the entries a run needs: ``names`` maps each key to a safe name of what it holds."""

    def __init__(self, store: Store, names: dict[str, str], progress: ProgressFn, should_stop: StopFn) -> None:
        self.store = store
        self.names = names
        self.ready: set[str] = set()
        """Keys whose entries stand in the store, verified or written."""
        self._progress = progress
        self._should_stop = should_stop

    def missing(self) -> list[str]:
        """Verify every entry that stands; returns the keys to be made, in order, none after a stop.

        Raises:
            CacheError: an entry may not be read.
        """
        self.store.sweep()
        missing: list[str] = []
        for key in self.names:
            if self.stopped():
                return []
            if self.store.verify(key):
                self._done(key)
            else:
                missing.append(key)
        return missing

    def put(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Write one entry and tell.

        Raises:
            CacheError: a value is not finite.
            DiskError: the cache cannot be written.
        """
        self.store.put(key, tensors, what=self.names[key])
        self._done(key)

    def stopped(self) -> bool:
        """Whether the stage should end early."""
        return self._should_stop()

    def _done(self, key: str) -> None:
        self.ready.add(key)
        self._progress(len(self.ready), len(self.names), self.names[key])


def out_of_memory(what: str, err: BaseException) -> CacheError:
    """The error for an encoder that the GPU's memory does not hold."""
    return CacheError(
        f"{what} needs more GPU memory than there is",
        str(err).split("\n")[0],
        "Close other programs that use the GPU, lower dataset.resolution, or set training.device = cpu for caching.",
    )
