"""The order in which pictures are seen: a pure function of (dataset, settings, seed, epoch) and the captions taken.

Turns samples into steps of micro-batches, each item with its view (bucket, crop, flip) and its final caption. Nothing
is remembered from one epoch to the next, so a run resumes at any step by counting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from engine.cache.latents import View
from engine.config import RunConfig
from engine.dataset.buckets import Placement, place, random_crop
from engine.dataset.captions import final_caption, is_fixed
from engine.dataset.scan import Sample
from engine.draws import python_random


@dataclass(frozen=True)
class Item:
    """One picture's turn: ``slot`` is its number within the epoch, ``weight`` that of its loss."""

    slot: int
    view: View
    caption: str
    weight: float


@dataclass(frozen=True)
class MicroBatch:
    """Pictures of one bucket that go through the model together."""

    items: tuple[Item, ...]

    @property
    def names(self) -> str:
        """The pictures' names, for messages."""
        return ", ".join(item.view.sample.name for item in self.items)


Step = tuple[MicroBatch, ...]
"""The micro-batches of one optimizer step, across all processes."""


@dataclass(frozen=True)
class Turn:
    """Where a step stands: its number in the run (from 1), its epoch (from 1) and index in it (from 0)."""

    step: int
    epoch: int
    index: int


class Order:
    """All steps of a run, computed when asked for."""

    def __init__(self, samples: Sequence[Sample], config: RunConfig, processes: int = 1) -> None:
        self.samples = tuple(samples)
        self.config = config
        self.processes = processes
        self._placements = {s.index: self._place(s) for s in self.samples}
        self._lengths: dict[int, int] = {}
        self._taken: dict[int, list[tuple[int, str]]] = {}
        self.epoch_steps = lru_cache(maxsize=4)(self._epoch_steps)

    def _place(self, sample: Sample) -> Placement:
        dataset = self.config.dataset
        return place(sample.width, sample.height, dataset.resolution, dataset.buckets)

    def take(self, epoch: int, texts: Mapping[int, str]) -> None:
        """Let captions count from ``epoch`` on: ``texts`` by the samples' indices; later epochs come later."""
        for index, text in texts.items():
            self._taken.setdefault(index, []).append((epoch, text))
        if texts:
            self.epoch_steps.cache_clear()

    def caption(self, sample: Sample, epoch: int) -> str:
        """The caption that a picture has in an epoch, as it was read."""
        for since, text in reversed(self._taken.get(sample.index, ())):
            if since <= epoch:
                return text
        return sample.caption

    def captions_from(self, epoch: int, texts: Mapping[int, str]) -> set[str]:
        """Every final caption, in ``epoch`` and after it, of the pictures with other ``texts`` (by index)."""
        changed = [sample for sample in self.samples if sample.index in texts]
        if is_fixed(self.config.dataset.captions):
            return {self._final(sample, texts[sample.index], epoch, 0) for sample in changed}
        if not changed:
            return set()

        def places(seen: Sequence[Sample]) -> list[tuple[int, Sample]]:
            return [(slot, sample) for slot, sample in enumerate(seen) if sample.index in texts]

        # The concept's slots are the same in every epoch; only regularization pictures are drawn anew.
        same = None if any(sample.regularization for sample in changed) else places(self._concept)
        return {
            self._final(sample, texts[sample.index], later, slot)
            for later in range(epoch, self.total_epochs + 1)
            for slot, sample in (places(self._seen(later)) if same is None else same)
        }

    def turns(self, after: int = 0) -> Iterator[Turn]:
        """Every step beyond step ``after``, up to the earlier of the configured epochs and steps."""
        training = self.config.training
        step = epoch = 0
        while not training.epochs or epoch < training.epochs:
            epoch += 1
            for index in range(self._length(epoch)):
                step += 1
                if step > after:
                    yield Turn(step, epoch, index)
                if step == training.steps:
                    return

    @cached_property
    def _last(self) -> Turn:
        return max(self.turns(), key=lambda turn: turn.step)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self._last.step

    @property
    def total_epochs(self) -> int:
        """Epochs of the whole run; the last may be cut short by ``training.steps``."""
        return self._last.epoch

    def ends_epoch(self, turn: Turn) -> bool:
        """Whether ``turn`` is the last of its epoch."""
        return turn.index + 1 == self._length(turn.epoch)

    def _length(self, epoch: int) -> int:
        """Steps of an epoch; only the first time the epoch is computed for it."""
        if epoch not in self._lengths:
            self._lengths[epoch] = len(self.epoch_steps(epoch))
        return self._lengths[epoch]

    def items(self) -> Iterator[Item]:
        """Every item of every step: what the caches have to hold."""
        for turn in self.turns():
            for micro in self.epoch_steps(turn.epoch)[turn.index]:
                yield from micro.items

    def step(self, turn: Turn) -> Step:
        """The micro-batches of one step."""
        return self.epoch_steps(turn.epoch)[turn.index]

    def _epoch_steps(self, epoch: int) -> tuple[Step, ...]:
        """Group by bucket, shuffle within, cut into micro-batches, shuffle those, gather them into steps."""
        seed, training = self.config.seed, self.config.training
        buckets: dict[tuple[int, int], list[Item]] = {}
        for slot, sample in enumerate(self._seen(epoch)):
            item = self._item(sample, epoch, slot)
            placement = item.view.placement
            buckets.setdefault((placement.bucket_w, placement.bucket_h), []).append(item)
        micros: list[MicroBatch] = []
        size = training.batch_size
        for (width, height), items in sorted(buckets.items()):
            python_random(seed, "order", epoch, width, height).shuffle(items)
            micros += [MicroBatch(tuple(items[i : i + size])) for i in range(0, len(items), size)]
        python_random(seed, "batches", epoch).shuffle(micros)
        width = training.accumulation * self.processes
        return tuple(tuple(micros[i : i + width]) for i in range(0, len(micros), width))

    @cached_property
    def _concept(self) -> list[Sample]:
        """What every epoch sees first, in the same slots: the samples of the concept with repeats."""
        return [s for s in self.samples if not s.regularization for _ in range(s.repeats)]

    def _seen(self, epoch: int) -> list[Sample]:
        """The epoch's samples with repeats; as many regularization pictures as others, drawn anew each epoch."""
        concept = self._concept
        others = [s for s in self.samples if s.regularization for _ in range(s.repeats)]
        if not concept:
            return others
        draw = python_random(self.config.seed, "regularization", epoch)
        chosen: list[Sample] = []
        while others and len(chosen) < len(concept):
            draw.shuffle(others)
            chosen += others
        return concept + chosen[: len(concept)]

    def _item(self, sample: Sample, epoch: int, slot: int) -> Item:
        dataset, seed = self.config.dataset, self.config.seed
        placement = self._placements[sample.index]
        if dataset.random_crop:
            placement = random_crop(placement, seed, epoch, slot)
        flip = dataset.flip and python_random(seed, "flip", epoch, slot).random() < 0.5
        caption = self._final(sample, self.caption(sample, epoch), epoch, slot)
        weight = dataset.prior_loss_weight if sample.regularization else 1.0
        return Item(slot, View(sample, placement, flip), caption, weight)

    def _final(self, sample: Sample, text: str, epoch: int, slot: int) -> str:
        return final_caption(text, self.config.dataset.captions, self.config.seed, epoch, slot, sample.regularization)
