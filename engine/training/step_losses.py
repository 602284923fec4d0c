"""How well the training pictures are learned, by what the steps themselves show: a figure for each picture.

A sample's loss is mostly that of its noise level, so each is held against what is usual there. With the noise levels
in :data:`BANDS` equal bands and ``m(b)`` the running mean of all samples' losses in band ``b``::

    m(b) += (loss - m(b)) / min(n(b), 64)        n(b): samples seen in the band, this one among them
    r(p) += (loss / m(b) - r(p)) / min(k(p), 8)  k(p): times that picture p was seen, this one among them

``r(p)`` near 1 is a picture like the others; one that stays well above it is hard to learn: cluttered, unlike the
rest, or captioned as something else. Nothing waits for it: the losses come to the host with the step's own, and the
noise levels are drawn again. Regularization pictures are left out: others are usual among them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.batches import Order, Turn
from engine.config import RunConfig
from engine.events import EventLog, PictureLosses, replay
from engine.models.family import Family
from engine.training.modulations import micro_sigmas

BANDS = 10
BAND_MEMORY, PICTURE_MEMORY = 64, 8
"""Samples after which older ones begin to fade: in a band, and of a picture."""

MANY, MOST_TOLD = 500, 20
"""With more pictures than this the figures are told only so many times in a run: they would fill its events."""

LINE_CHARS = 32_000
"""Room for the names in one event: readers look for the last line of a file in its last 64 kB."""


class StepLosses:
    """The figures of one run, in its main process.

    Args:
        path: the run's events, where a resumed run finds what it told before.
    """

    def __init__(self, config: RunConfig, family: Family, order: Order, events: EventLog, path: Path) -> None:
        self._config, self._family, self._order = config, family, order
        self._events, self._path = events, path
        self._bands: dict[int, tuple[float, int]] = {}
        self._pictures: dict[str, tuple[float, int]] = {}
        many = sum(not sample.regularization for sample in order.samples) > MANY
        self._every = -(-order.total_epochs // MOST_TOLD) if many else 1

    def begin(self, step: int) -> None:
        """Take up what was told up to ``step``; what is usual by noise level is found anew.

        Raises:
            OSError: the events cannot be read.
        """
        self._bands.clear()
        self._pictures.clear()
        for entry in replay(self._path, PictureLosses) if step and self._path.exists() else ():
            told = entry.event
            if isinstance(told, PictureLosses) and told.kind == "steps" and told.step <= step:
                figures = zip(told.names, told.losses, told.counts, strict=False)
                self._pictures |= {name: (loss, max(count, 1)) for name, loss, count in figures}

    def add(self, turn: Turn, losses: Sequence[float]) -> None:
        """Take in the ``losses`` of a step's samples, in the order of its micro-batches."""
        left = iter(losses)
        for number, micro in enumerate(self._order.step(turn)):
            sigmas = micro_sigmas(self._config, self._family, micro, turn.step, number).tolist()
            for item, sigma, loss in zip(micro.items, sigmas, left, strict=False):
                if not item.view.sample.regularization and math.isfinite(loss):
                    self._take(str(item.view.sample.path), sigma, loss)

    def tell(self, step: int, epoch: int) -> None:
        """Tell the figures after an epoch, where they are due."""
        if epoch % self._every and epoch < self._order.total_epochs:
            return
        for names in parts(sorted(self._pictures)):
            figures = [self._pictures[name] for name in names]
            losses = tuple(round(loss, 4) for loss, _ in figures)
            counts = tuple(count for _, count in figures)
            self._events.append(PictureLosses(step, epoch, "steps", names, losses, counts=counts))

    def _take(self, name: str, sigma: float, loss: float) -> None:
        band = min(int(sigma * BANDS), BANDS - 1)
        usual, seen = self._bands.get(band, (0.0, 0))
        usual += (loss - usual) / min(seen + 1, BAND_MEMORY)
        self._bands[band] = usual, seen + 1
        mean, count = self._pictures.get(name, (0.0, 0))
        share = loss / usual if usual > 0 else 1.0
        self._pictures[name] = mean + (share - mean) / min(count + 1, PICTURE_MEMORY), count + 1


def parts(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """``names`` in order, cut so that each part's JSON stays short."""
    part: list[str] = []
    room = LINE_CHARS
    for name in names:
        size = len(json.dumps(name)) + 2
        if part and size > room:
            yield tuple(part)
            part, room = [], LINE_CHARS
        part.append(name)
        room -= size
    if part:
        yield tuple(part)
