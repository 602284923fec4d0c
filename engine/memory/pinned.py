"""Host memory that the GPU reads and writes without the processor: flat buffers under a budget.

A buffer is a page-aligned piece of anonymous memory of exactly the size asked for (torch's own pinned allocator
rounds up to a power of two: 13 % more for FLUX's blocks), registered with the driver. What the budget or the driver
does not allow stays ordinary memory, and :meth:`HostPool.words` says what that costs. Nothing is taken that the host
has not free.

A block lies in one buffer, every tensor of it at an aligned offset: it travels as one copy.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod

import torch
from torch import Tensor

from engine.errors import RunError
from engine.hardware.host import host_memory
from engine.memory.frozen import BlockWeights, DoubleWeights, block_tensors, with_block_tensors
from engine.memory.plan import ALIGNMENT

MARGIN_BYTES = 2 * 2**30
"""Host memory that stays free whatever is asked for: the system, the loader, the interface."""

SAFE_SHARE = 0.5
"""Share of the free host memory that is pinned at most where the user names no limit: pinned pages cannot be
swapped out, and systems on shared machines (WSL among them) allow no more than half."""


@dataclass
class HostBuffer:
    """Flat host memory.

    Attributes:
        data: (bytes,) uint8.
        pinned: whether copies to and from the GPU run by themselves.
    """

    data: Tensor
    pinned: bool


class HostPool:
    """Hands out host memory, pinned as far as budget and driver allow.

    Args:
        budget_bytes: most to pin; 0 is a safe share of what is free now.
        pin: whether there is a GPU to pin for.
        free_bytes: host memory free now; None asks the system at each taking.
        processes: how many on this machine take memory at the same time, each with a pool: budget and what is free
            now are shared equally.
    """

    def __init__(
        self, budget_bytes: int = 0, pin: bool = False, free_bytes: int | None = None, processes: int = 1
    ) -> None:
        self._pin = pin
        self._fixed = free_bytes
        free = self._free_now()
        self._at_start = MARGIN_BYTES + (free - MARGIN_BYTES) // processes  # what others will take is not taken yet
        self._registered: list[HostBuffer] = []
        self._refused = ""
        self._told = (0, "")
        self.pinned_bytes = 0
        self.pageable_bytes = 0
        self._budget = budget_bytes // processes or int(SAFE_SHARE * self.free_bytes())

    def free_bytes(self) -> int:
        """Host memory that may still be taken, the margin left aside.

        What was taken but never written to is not used in the system's eyes: both counts have to allow it.
        """
        left = self._at_start - self.pinned_bytes - self.pageable_bytes
        return max(min(left, self._free_now()) - MARGIN_BYTES, 0)

    def _free_now(self) -> int:
        if self._fixed is not None:
            return self._fixed
        used, total, _ = host_memory()
        return int((total - used) * 2**30)

    def require(self, nbytes: int, what: str) -> None:
        """Check that the host has room, before anything is loaded.

        Raises:
            RunError: it has not.
        """
        free = self.free_bytes()
        if nbytes > free:
            kept = f"{_gb(MARGIN_BYTES)} kept for the system"
            raise RunError(*_too_little(f"{what}: {_gb(nbytes)} wanted, {_gb(free)} free beside {kept}"))

    def holds(self, sizes: Sequence[int]) -> int:
        """How many buffers of these sizes, from the first on, the host has room for."""
        return sum(total <= self.free_bytes() for total in accumulate(sizes))

    def take(self, nbytes: int) -> HostBuffer:
        """A buffer of its own.

        Raises:
            RunError: the host has no room for it.
        """
        self.require(nbytes, "one more buffer")
        data = torch.frombuffer(_pages(nbytes), dtype=torch.uint8)[:nbytes]
        buffer = HostBuffer(data, pinned=self._try_to_pin(data))
        if buffer.pinned:
            self._registered.append(buffer)
            self.pinned_bytes += nbytes
        else:
            self.pageable_bytes += nbytes
        return buffer

    def give_back(self, buffer: HostBuffer) -> None:
        """Let go of a buffer; nothing may read or write it any more."""
        if buffer.pinned:
            self._registered = [each for each in self._registered if each is not buffer]
            _unregister(buffer.data)
            self.pinned_bytes -= buffer.data.numel()
        else:
            self.pageable_bytes -= buffer.data.numel()
        buffer.data, buffer.pinned = buffer.data.new_empty(0), False

    def close(self) -> None:
        """Let go of everything, behind the copies that are still under way."""
        if self._registered:
            _quieten()
        for buffer in list(self._registered):
            self.give_back(buffer)

    def words(self) -> str:
        """What could not be pinned and what that costs; empty where nothing is missing."""
        if not self._pin or not self.pageable_bytes:
            return ""
        total = self.pinned_bytes + self.pageable_bytes
        return (
            f"{_gb(self.pageable_bytes)} of {_gb(total)} in host memory are not pinned ({self._refused}): "
            "their copies run at about half the link's rate, and computing waits for them"
        )

    def news(self) -> str:
        """:meth:`words`, if more was left unpinned than when this was last asked; cheap where nothing was."""
        told, last = self._told
        if self.pageable_bytes <= told:
            return ""
        words = self.words()
        self._told = self.pageable_bytes, words
        return words if words != last else ""

    def _try_to_pin(self, data: Tensor) -> bool:
        if not self._pin or not data.numel():
            return False
        if self.pinned_bytes + data.numel() > self._budget:
            self._refused = f"memory.pinned_gb allows {_gb(self._budget)}"
            return False
        refused = _register(data)
        self._refused = refused or self._refused
        return not refused


def _pages(nbytes: int) -> mmap.mmap:
    """Anonymous memory of this process alone, in huge pages where the system has them.

    Raises:
        RunError: the system gives none.
    """
    try:
        pages = mmap.mmap(-1, max(nbytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as err:
        raise RunError(
            *_too_little(f"one more buffer: {_gb(nbytes)} wanted, the system says: {err.strerror}")
        ) from err
    # 512 times fewer pages to pin (shared memory would not get them); and a child process may not share the pages,
    # or what is written here next would go to a copy that the card does not read.
    for name in ("MADV_HUGEPAGE", "MADV_DONTFORK"):
        if hasattr(mmap, name):
            with contextlib.suppress(OSError):  # a kernel built without it
                pages.madvise(getattr(mmap, name))
    return pages


def _too_little(detail: str) -> tuple[str, str, str]:
    """Title, detail and hint of the error."""
    hint = 'Lower memory.blocks_to_swap, or pack the base: memory.precision = "int8" halves it, "nf4" quarters.'
    return "Too little host memory", detail, hint


def _register(data: Tensor) -> str:
    """Pin memory in place; the driver's reason if it refuses."""
    code = int(torch.cuda.cudart().cudaHostRegister(data.data_ptr(), data.numel(), 0))
    if not code:
        return ""
    with contextlib.suppress(RuntimeError):
        # The refusal would be raised by whatever is launched next: let it be this.
        torch.zeros(1, device="cuda")
    return f"the driver refused, error {code}"


def _quieten() -> None:
    """Wait for what the card still reads and writes."""
    with contextlib.suppress(RuntimeError):  # a card that has failed said so where it was asked for work
        torch.cuda.synchronize()


def _unregister(data: Tensor) -> None:
    torch.cuda.cudart().cudaHostUnregister(data.data_ptr())


@dataclass(frozen=True)
class Piece:
    """Where one tensor lies in a block's buffer; strides in elements, as the tensor had them if it was dense."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True)
class BlockLayout:
    """A block in one flat buffer of ``nbytes``."""

    pieces: tuple[Piece, ...]
    nbytes: int


def layout_of(weights: BlockWeights) -> BlockLayout:
    """Lay a block's tensors one after the other, each at a multiple of 256 bytes."""
    pieces: list[Piece] = []
    offset = 0
    for name, tensor in block_tensors(weights).items():
        nbytes = tensor.numel() * tensor.element_size()
        pieces.append(Piece(name, tensor.dtype, tuple(tensor.shape), _strides(tensor), offset, nbytes))
        offset += -(-nbytes // ALIGNMENT) * ALIGNMENT
    return BlockLayout(tuple(pieces), offset)


def _strides(tensor: Tensor) -> tuple[int, ...]:
    """The tensor's own strides where they leave no gap (a transposed matrix stays one), else the plain ones."""
    by_stride = sorted(range(tensor.dim()), key=lambda axis: (tensor.stride(axis), tensor.shape[axis]))
    expected = 1
    for axis in by_stride:
        if tensor.shape[axis] != 1 and tensor.stride(axis) != expected:
            return tuple(torch.empty(tensor.shape, device="meta").stride())
        expected *= tensor.shape[axis]
    return tuple(tensor.stride())


def tensor_views(buffer: Tensor, layout: BlockLayout) -> dict[str, Tensor]:
    """The tensors of a block in a flat uint8 buffer, on whatever device it is."""
    return {
        piece.name: buffer[piece.offset : piece.offset + piece.nbytes]
        .view(piece.dtype)[: prod(piece.shape)]
        .as_strided(piece.shape, piece.stride)
        for piece in layout.pieces
    }


def pack_into(buffer: Tensor, weights: BlockWeights, layout: BlockLayout | None = None) -> BlockWeights:
    """Copy a block into a flat uint8 buffer; the same block over views of it."""
    views = tensor_views(buffer, layout or layout_of(weights))
    for name, tensor in block_tensors(weights).items():
        if tensor.data_ptr() != views[name].data_ptr():  # else it was written there in the first place
            views[name].copy_(tensor)
    return over(weights, views)


def over(weights: BlockWeights, tensors: Mapping[str, Tensor]) -> BlockWeights:
    """The same block over other tensors."""
    if isinstance(weights, DoubleWeights):
        return with_block_tensors(weights, tensors)
    return with_block_tensors(weights, tensors)


@dataclass(frozen=True)
class HostBlock:
    """A block that waits in host memory: its weights as views of one buffer."""

    weights: BlockWeights
    buffer: HostBuffer
    layout: BlockLayout

    def views(self, buffer: Tensor) -> BlockWeights:
        """The same block in another flat buffer, a ring slot for one."""
        return over(self.weights, tensor_views(buffer, self.layout))


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB"
