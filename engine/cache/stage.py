"""What caching pictures and caching captions share: check what stands, do the rest, tell how far it is, stop.

Stands alone so that both stages verify, report and stop in the same way.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from engine.cache.store import Store
from engine.errors import CacheError, DiskFull
from engine.files import free_bytes
from engine.memory.exhaustion import first_line, ran_out
from engine.models.weights import free_gpu
from engine.text import safe_text

ProgressFn = Callable[[int, int, str], None]
"""Told (done, total, safe name of the entry or of the work at hand) as a stage advances."""

StopFn = Callable[[], bool]
"""Asked between entries; True ends the stage early."""

NoteFn = Callable[[str], None]
"""Told, once a stage, what is worth a line in the log."""


class Stage:
    """One pass over the entries a run needs: ``names`` maps each key to a safe name of what it holds."""

    def __init__(self, store: Store, names: dict[str, str], progress: ProgressFn, should_stop: StopFn) -> None:
        self.store = store
        self.names = names
        self.ready: set[str] = set()
        """Keys whose entries stand in the store, verified or written."""
        self._progress = progress
        self._should_stop = should_stop
        self._measured = False

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
            DiskError: the cache cannot be written, or the disk has no room for all entries of its size that are left.
        """
        self.store.put(key, tensors, what=self.names[key])
        self._done(key)
        if not self._measured:
            self._measured = True
            self._require_room(self.store.size(key))

    def _require_room(self, nbytes: int) -> None:
        """Refuse now what would fail after hours: entries of a stage are of about one size."""
        left = nbytes * (len(self.names) - len(self.ready))
        free = free_bytes(self.store.root)
        if 0 <= free < left:
            raise DiskFull(
                "The disk has no room for the cache",
                f"{len(self.names) - len(self.ready)} entries are left and take {left / 2**30:.2f} GB; "
                f"{free / 2**30:.2f} are free at {safe_text(self.store.root)}",
                "Free some space, or choose another cache_dir. What was cached is kept.",
            )

    def tell(self, what: str) -> None:
        """Tell what is being done while no entry is."""
        self._progress(len(self.ready), len(self.names), what)

    def stopped(self) -> bool:
        """Whether the stage should end early."""
        return self._should_stop()

    def _done(self, key: str) -> None:
        self.ready.add(key)
        self._progress(len(self.ready), len(self.names), self.names[key])


def with_patience(work: Callable[[bool], None], what: str, note: NoteFn) -> None:
    """Do ``work``; where memory runs out in it, free what can be freed, and do what is left of it once more.

    Args:
        work: told whether to be sparing with memory; may be called again after it broke off.
        what: names the work, for the error.
        note: told that there is a second attempt, and why.

    Raises:
        CacheError: memory ran out in the second attempt, too.
    """
    try:
        work(False)
        return
    except RuntimeError as err:
        if not ran_out(err):
            raise
        reason = first_line(err)
    # Only here, without the error, is the memory free that its frames held.
    free_gpu()
    note(f"{what}: out of memory ({reason}); the GPU's unused memory is freed, and on with what is left")
    try:
        work(True)
    except RuntimeError as err:
        if not ran_out(err):
            raise
        raise _out_of_memory(what, err) from err


def _out_of_memory(what: str, err: BaseException) -> CacheError:
    """The error for an encoder that the GPU's memory does not hold."""
    return CacheError(
        f"{what} needs more GPU memory than there is",
        f"{first_line(err)}; tried: one at a time, and again with all other memory freed",
        "Close other programs that use the GPU, lower dataset.resolution, or set training.device = cpu for caching.",
    )
