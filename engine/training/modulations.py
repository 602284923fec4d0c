"""Modulation of the coming samples, computed ahead: which samples come is known from order, seed and captions.

When a micro-batch is due that nothing is there for, a chunk is begun with it: its samples and those of the steps
after it, as many as fit. Whatever makes the future another one than foreseen (a caption edited, a run resumed) shows
in the contents of the micro-batch, and what was computed for other contents is not used. So where a chunk begins and
ends changes no bit, and nothing has to be told here. A batch that the order does not know is served by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from engine.batches import MicroBatch, Order
from engine.config import RunConfig
from engine.draws import torch_generator
from engine.memory.conditioning import CHUNK, Conditioning, Table
from engine.models.family import Family
from engine.models.modulation import Modulation
from engine.training.device import Compute
from engine.training.entries import Entries
from engine.training.flow import draw_sigmas

Contents = tuple[tuple[float, str], ...]
"""What a micro-batch's modulation depends on: noise level and caption of each sample."""


def micro_sigmas(config: RunConfig, family: Family, micro: MicroBatch, step: int, number: int) -> Tensor:
    """Noise levels (B,) of micro-batch ``number`` of optimizer step ``step``: float32, on the CPU.

    They depend on the seed, this place and the pictures' size alone.
    """
    placement = micro.items[0].view.placement
    pixels = family.downscale * family.patch
    tokens = (placement.bucket_w // pixels) * (placement.bucket_h // pixels)
    generator = torch_generator(config.seed, "sigma", step, number)
    return draw_sigmas(config.objective, len(micro.items), tokens, generator)


class Modulations:
    """Hands each micro-batch of this process its modulation.

    Args:
        chunk: samples computed in one pass over the modulation layers.
    """

    def __init__(
        self,
        conditioning: Conditioning,
        order: Order,
        entries: Entries,
        config: RunConfig,
        family: Family,
        compute: Compute,
        chunk: int = CHUNK,
    ) -> None:
        self._conditioning = conditioning
        self._order = order
        self._entries = entries
        self._config = config
        self._family = family
        self._compute = compute
        self._chunk = chunk
        self._table: Table | None = None
        self._firsts: dict[tuple[int, int], tuple[int, Contents]] = {}

    def of(self, micro: MicroBatch, step: int, number: int, sigmas: Tensor) -> Modulation:
        """Modulation of micro-batch ``number`` of optimizer step ``step``, on the compute device.

        Args:
            sigmas: its noise levels (B,), on the CPU, as :func:`micro_sigmas` draws them.
        """
        wanted = _contents(micro, sigmas)
        first, foreseen = self._firsts.get((step, number), (0, ()))
        table = self._table
        if table is None or foreseen != wanted:
            if self._due(step, number) != wanted:
                return self._alone(micro, sigmas)
            first, table = 0, self._begin(step, number)
        return table.take(first, len(micro.items), self._compute.device)

    def drop(self) -> None:
        """Free the memory; the next micro-batch begins a chunk."""
        self._firsts.clear()
        table, self._table = self._table, None
        if table is not None:
            self._settle()
            self._conditioning.give_back(table)

    def _settle(self) -> None:
        """Wait until the table has been read: rows may still be on their way to the device."""
        if self._compute.device.type == "cuda":
            torch.cuda.current_stream(self._compute.device).synchronize()

    def _due(self, step: int, number: int) -> Contents:
        """What the order has at a place; nothing where it has no micro-batch of this process."""
        place, coming, drawn = next(self._coming(step, number), ((0, 0), None, Tensor()))
        return _contents(coming, drawn) if coming is not None and place == (step, number) else ()

    def _alone(self, micro: MicroBatch, sigmas: Tensor) -> Modulation:
        """Modulation of a batch that is none of the order's."""
        captions = [item.caption for item in micro.items]
        return self._conditioning(sigmas, self._entries.batch_pooled(captions), self._guidance(len(captions)))

    def _guidance(self, count: int) -> Tensor:
        return torch.full((count,), float(self._config.objective.guidance))

    def _begin(self, step: int, number: int) -> Table:
        """Compute a chunk that starts with this micro-batch."""
        firsts: dict[tuple[int, int], tuple[int, Contents]] = {}
        levels: list[Tensor] = []
        captions: list[str] = []
        more = False
        for place, coming, drawn in self._coming(step, number):
            if captions and len(captions) + len(coming.items) > self._chunk:
                more = True
                break
            firsts[place] = (len(captions), _contents(coming, drawn))
            levels.append(drawn)
            captions += [item.caption for item in coming.items]
        self._firsts.clear()
        conditioning = self._conditioning
        if self._table is None or self._table.samples < len(captions):
            self.drop()
            self._table = conditioning.reserve(max(self._chunk, len(captions)) if more else len(captions))
        else:
            self._settle()
        pooled = self._entries.batch_pooled(captions)
        conditioning.table(torch.cat(levels), pooled, self._guidance(len(captions)), into=self._table)
        self._firsts = firsts
        return self._table

    def _coming(self, step: int, number: int) -> Iterator[tuple[tuple[int, int], MicroBatch, Tensor]]:
        """This process's micro-batches from a place on, each with its place and noise levels."""
        for turn in self._order.turns(after=step - 1):
            for place, coming in enumerate(self._order.step(turn)):
                mine = place % self._compute.processes == self._compute.rank
                if mine and (turn.step, place) >= (step, number):
                    drawn = micro_sigmas(self._config, self._family, coming, turn.step, place)
                    yield (turn.step, place), coming, drawn


def _contents(micro: MicroBatch, sigmas: Tensor) -> Contents:
    captions = (item.caption for item in micro.items)
    return tuple(zip(sigmas.tolist(), captions, strict=True))
