"""From noise level, guidance and pooled text to every block's shift, scale and gate: one routine for all callers.

The modulation layers are 27 % of FLUX.1 and see one vector a sample, so their outputs are computed ahead, for many
samples in one pass over the weights (:meth:`Conditioning.table`), or for one step's samples when nobody did
(calling it). Both ways give the same bits: all arithmetic runs on pieces of exactly :data:`PIECE` rows, the last one
padded, because a product of another number of rows may be summed in another order. Adapters on modulation layers
are not in here: the transformer adds them, from ``Modulation.vec``.

Where the weights wait is the business of a :class:`ModulationLayers`: on the device, in host memory, or in the
checkpoint's file. Nothing here draws a random number or builds a graph.

Shape suffixes: B samples, V vectors, D width, P pooled text's width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.memory.copier import Copier, copier_for
from engine.memory.frozen import FrozenLinear
from engine.memory.pinned import HostBuffer, HostPool
from engine.models.flux import timestep_embedding
from engine.models.modulation import Modulation, ModulationPlace

PIECE = 16
"""Rows of every product; never one: a product with a single row is another routine and rounds differently."""

CHUNK = 256
"""Samples in a table by default: at full size 542 MB in bfloat16."""


class HostMemory(Protocol):
    """Host memory for tables; pinned memory hands its rows over without a stop."""

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor, uninitialised."""
        ...

    def give_back(self, tensor: Tensor) -> None:
        """What was taken, once; nothing may read or write it any more."""
        ...


class ModulationLayers(Protocol):
    """Where the modulation layers' weights come from."""

    def layers(self) -> Iterator[tuple[str, FrozenLinear]]:
        """Every layer once by its module's name, in any order and on any device."""
        ...


class Embedders(Protocol):
    """The part of a transformer that makes the conditioning vector; ``guidance_in`` is None for schnell."""

    time_in: nn.Module
    vector_in: nn.Module
    guidance_in: nn.Module | None


class HeldLayers:
    """Layers in memory, on the GPU or the host."""

    def __init__(self, layers: Mapping[str, FrozenLinear]) -> None:
        self._layers = dict(layers)

    def layers(self) -> Iterator[tuple[str, FrozenLinear]]:
        """Every layer, in the order given."""
        return iter(self._layers.items())

    def to(self, device: torch.device | str) -> None:
        """Move the layers' memory: off the GPU in a pause, and back."""
        self._layers = {name: layer_on(layer, device) for name, layer in self._layers.items()}

    @property
    def bytes_off_host(self) -> int:
        """Memory that the layers take on a GPU."""
        tensors = [tensor for layer in self._layers.values() for tensor in layer.tensors().values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor.device.type != "cpu")


@dataclass(frozen=True)
class Table:
    """Modulation of many samples: ``rows`` (n, V, D) and ``vec`` (n, D), in host memory."""

    rows: Tensor
    vec: Tensor

    @property
    def samples(self) -> int:
        """n."""
        return self.rows.shape[0]

    def take(self, first: int, count: int, device: torch.device | str) -> Modulation:
        """A copy of samples ``first`` to ``first + count`` on a device; nothing waits where the table is pinned.

        The table must not be written to before the device has read it.

        Raises:
            IndexError: the table does not hold them.
        """
        if first < 0 or first + count > self.samples:
            raise IndexError(f"samples {first} to {first + count} of a table of {self.samples}")
        part = slice(first, first + count)
        rows, vec = (tensor[part].to(device, non_blocking=True, copy=True) for tensor in (self.rows, self.vec))
        return Modulation(rows, vec)


class Conditioning:
    """The embedders and the modulation layers, as one function of (sigma, pooled text, guidance).

    Args:
        embedders: on the compute device, in the dtype to compute in; its modules are used as they stand, so moving
            them moves this.
        places: every modulation layer's place in the table.
        source: the layers' weights.
        host: memory for tables that are kept; pageable when None.
        copier: brings layers to a GPU; one of its own when None.
    """

    def __init__(
        self,
        embedders: Embedders | nn.Module,
        places: Sequence[ModulationPlace],
        source: ModulationLayers,
        host: HostMemory | None = None,
        copier: Copier | None = None,
    ) -> None:
        self._embedders = cast(Embedders, embedders)
        self._places = {place.name: place for place in places}
        self.source = source
        self._host: HostMemory = host or _Pageable()
        self._copier = copier
        self._home: torch.device | None = None
        self.vectors = sum(place.count for place in places)

    @property
    def device(self) -> torch.device:
        """Where the arithmetic runs."""
        return self._weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of rows and vectors."""
        return self._weight.dtype

    @property
    def width(self) -> int:
        """D."""
        return int(self._weight.shape[0])

    @property
    def _weight(self) -> Tensor:
        return cast(Tensor, self._embedders.time_in.get_parameter("out_layer.weight"))

    def bytes_of(self, samples: int) -> int:
        """Host memory of a table of ``samples``."""
        return samples * (self.vectors + 1) * self.width * self.dtype.itemsize

    def __call__(self, timesteps: Tensor, y: Tensor, guidance: Tensor | None = None) -> Modulation:
        """Modulation of a step's samples, on the compute device.

        Args:
            timesteps: sigma (B,).
            y: pooled text (B, P).
            guidance: (B,); ignored by models without the embedding.

        Raises:
            ValueError: the model embeds guidance and none was given.
        """
        count, device = len(timesteps), self.device
        rows = torch.empty(count, self.vectors, self.width, dtype=self.dtype, device=device)
        vec = torch.empty(count, self.width, dtype=self.dtype, device=device)
        self._fill(rows, vec, timesteps, y, guidance)
        return Modulation(rows, vec)

    def reserve(self, samples: int) -> Table:
        """Host memory for tables of up to ``samples``, not yet written; made to be kept for a whole run."""
        return self._table(self._host, samples)

    def give_back(self, table: Table) -> None:
        """Free what :meth:`reserve` gave; the device must have read what it was to read."""
        for tensor in (table.rows, table.vec):
            self._host.give_back(tensor)

    def _table(self, host: HostMemory, samples: int) -> Table:
        shapes = (samples, self.vectors, self.width), (samples, self.width)
        rows, vec = (host.take(shape, self.dtype) for shape in shapes)
        return Table(rows, vec)

    def table(self, timesteps: Tensor, y: Tensor, guidance: Tensor | None = None, into: Table | None = None) -> Table:
        """Modulation of many samples in host memory; every layer passes through the device once.

        Args:
            timesteps, y, guidance: as when called, on any device.
            into: where to write, from its first sample on; the device must be done with what stood there. When
                None, ordinary memory that is gone with the table.

        Returns:
            Table of exactly these samples, in the memory of ``into`` if given.

        Raises:
            ValueError: the model embeds guidance and none was given.
        """
        count = len(timesteps)
        into = into or self._table(_Pageable(), count)
        table = Table(into.rows[:count], into.vec[:count])
        self._fill(table.rows, table.vec, timesteps, y, guidance)
        return table

    def host_bytes(self) -> int:
        """Host memory that :meth:`leave` takes."""
        return self._held.bytes_off_host if self._held else 0

    def leave(self) -> None:
        """Take layers that are held on a GPU off it; the embedders are the transformer's to move."""
        if self._held and self.device.type != "cpu" and self._held.bytes_off_host:
            self._home = self.device
            self._held.to("cpu")

    def come_back(self) -> None:
        """Undo :meth:`leave`."""
        if self._held and self._home is not None:
            self._held.to(self._home)
            self._home = None

    @property
    def _held(self) -> HeldLayers | None:
        return self.source if isinstance(self.source, HeldLayers) else None

    def _fill(self, rows: Tensor, vec: Tensor, timesteps: Tensor, y: Tensor, guidance: Tensor | None) -> None:
        count, device = len(timesteps), self.device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            pieces = self._vectors(timesteps.to(device), y.to(device), guidance)
            vec.copy_(torch.cat(pieces)[:count])
            pieces = [F.silu(piece) for piece in pieces]
            missing = set(self._places)
            for name, layer in arriving(self.source.layers(), device, self._copier):
                place = self._places[name]
                out = torch.cat([layer.forward(piece) for piece in pieces])[:count]
                rows[:, place.first : place.first + place.count] = out.view(count, place.count, -1)
                missing.discard(name)
        if missing:
            raise ValueError(f"no weights for {len(missing)} modulation layers, {sorted(missing)[0]} among them")

    def _vectors(self, timesteps: Tensor, y: Tensor, guidance: Tensor | None) -> list[Tensor]:
        """The conditioning vectors in pieces of (PIECE, D), as the plain transformer's ``conditioning``."""
        parts, dtype = self._embedders, self.dtype
        if parts.guidance_in is not None and guidance is None:
            raise ValueError("this model embeds guidance (FLUX.1-dev): give a guidance value per sample")
        found = []
        for first in range(0, len(timesteps), PIECE):
            vec = parts.time_in(timestep_embedding(_piece(timesteps, first)).to(dtype))
            if parts.guidance_in is not None and guidance is not None:
                level = _piece(guidance.to(timesteps.device), first)
                vec = vec + parts.guidance_in(timestep_embedding(level).to(dtype))
            found.append(vec + parts.vector_in(_piece(y.to(dtype), first)))
        return found


def _piece(values: Tensor, first: int) -> Tensor:
    """Rows ``first`` to ``first + PIECE``, in memory of their own, padded with zeros."""
    part = values[first : first + PIECE]
    padded = part.new_zeros(PIECE, *part.shape[1:])
    padded[: len(part)] = part
    return padded


class PoolMemory:
    """Tables in memory of a pool: pinned as far as its budget allows."""

    def __init__(self, pool: HostPool) -> None:
        self._pool = pool
        self._taken: dict[int, HostBuffer] = {}

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """As :meth:`HostMemory.take`.

        Raises:
            RunError: the host has no room for it.
        """
        buffer = self._pool.take(prod(shape) * dtype.itemsize)
        self._taken[buffer.data.data_ptr()] = buffer
        return buffer.data.view(dtype).view(shape)

    def give_back(self, tensor: Tensor) -> None:
        """As :meth:`HostMemory.give_back`."""
        self._pool.give_back(self._taken.pop(tensor.data_ptr()))


class _Pageable:
    """Ordinary memory, freed with the tensor."""

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype)

    def give_back(self, tensor: Tensor) -> None:
        """Whoever drops the tensor frees it."""


def layer_on(layer: FrozenLinear, device: torch.device | str) -> FrozenLinear:
    """The same linear with its memory on a device; itself where it is there already."""
    tensors = layer.tensors()
    moved = {name: tensor.to(device) for name, tensor in tensors.items()}
    return layer if all(moved[name] is tensors[name] for name in tensors) else layer.with_tensors(moved)


def _is_on(layer: FrozenLinear, device: torch.device) -> bool:
    return all(tensor.device.type == device.type for tensor in layer.tensors().values())


def arriving(
    layers: Iterator[tuple[str, FrozenLinear]], device: torch.device, copier: Copier | None = None
) -> Iterator[tuple[str, FrozenLinear]]:
    """The layers on ``device``, each valid until the next one is asked for."""
    first = next(layers, None)
    if first is None:
        return
    every = chain([first], layers)
    if device.type == "cpu" or _is_on(first[1], device):
        yield from ((name, layer_on(layer, device)) for name, layer in every)
    else:
        yield from travelling(every, device, copier or copier_for(device))


class _Slot:
    """Device memory that layers take turns in."""

    def __init__(self, device: torch.device, copier: Copier) -> None:
        self.memory = torch.empty(0, dtype=torch.uint8, device=device)
        self.arrived, self.free = copier.mark(), copier.mark()

    def fetch(self, layer: FrozenLinear, copier: Copier) -> FrozenLinear:
        """Ask for a layer's copy into this slot; the layer there, to be used when ``arrived`` is reached."""
        tensors = layer.tensors()
        needed = sum(map(_padded, tensors.values()))
        if self.memory.numel() < needed:
            self.memory = torch.empty(needed, dtype=torch.uint8, device=self.memory.device)
            copier.record(self.free)  # new memory: whatever computes may still use it under another name
        views = slot_views(self.memory, tensors)
        for name, tensor in tensors.items():
            copier.load(views[name], tensor, (self.free,), self.arrived)
        return layer.with_tensors(views)


def travelling(
    layers: Iterable[tuple[str, FrozenLinear]], device: torch.device, copier: Copier
) -> Iterator[tuple[str, FrozenLinear]]:
    """The layers in device memory, each one on its way while its predecessor is at work.

    Two slots take turns, so that the device never holds more, however far the host runs ahead of it.
    """
    slots = [_Slot(device, copier), _Slot(device, copier)]
    coming: tuple[str, FrozenLinear, _Slot] | None = None
    try:
        for name, layer in layers:
            following = (name, slots[0].fetch(layer, copier), slots[0])
            if coming is not None:
                yield _arrived(*coming, copier)
                copier.record(coming[2].free)
            coming = following
            slots.reverse()
        if coming is not None:
            yield _arrived(*coming, copier)
    finally:
        copier.join()  # the slots' memory goes back to what computes


def _arrived(name: str, layer: FrozenLinear, slot: _Slot, copier: Copier) -> tuple[str, FrozenLinear]:
    copier.wait(slot.arrived)
    return name, layer


def _padded(tensor: Tensor) -> int:
    """Bytes in a slot: what follows is aligned as an allocation of its own would be."""
    return -(-tensor.numel() * tensor.element_size() // 512) * 512


def slot_views(slot: Tensor, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of these shapes and dtypes inside a flat uint8 ``slot``, one after the other."""
    views, begin = {}, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        views[name] = slot[begin : begin + size].view(tensor.dtype).view(tensor.shape)
        begin += _padded(tensor)
    return views
