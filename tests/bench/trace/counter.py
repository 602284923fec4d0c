"""Counts what a step launches: FLOPs of products, bytes of everything else, memory that lives at once.

A dispatch mode sees every kernel that eager torch would launch, backward included; under fake tensors nothing is
computed, so a step of 250 TFLOP takes seconds. Bytes are those of the tensors a kernel is given and makes, each read
or written once: what a cache saves is not known here, so they are upper bounds. Memory is the sum of the storages
that exist at once: the caching allocator adds its rounding, libraries their workspaces.

GB is 1e9 bytes. One multiply and add is 2 FLOP.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter as Multiset
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.blocks import kernels_traffic

PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "_int_mm", "_scaled_mm", "addmm_", "baddbmm_", "_addmm_activation"}
ATTENTION = "_scaled_dot_product_"
NO_KERNEL = {
    "empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "_unsafe_view", "detach", "detach_",
    "alias", "lift_fresh", "set_", "resize_", "_local_scalar_dense", "is_pinned",
}  # fmt: skip
WRITES_ONLY = {"copy_", "zero_", "fill_", "normal_", "uniform_", "bernoulli_", "random_"}


@dataclass
class Tally:
    """What was counted; bytes of products and of the rest apart."""

    product_flops: float = 0.0
    attention_flops: float = 0.0
    launches: int = 0
    product_bytes: int = 0
    rest_bytes: int = 0
    peak_bytes: int = 0
    """Most bytes alive at once beyond those alive when counting began."""
    by_name: Multiset[str] = field(default_factory=Multiset)
    """Bytes outside products by the kernel's name."""

    @property
    def flops(self) -> float:
        """All of them."""
        return self.product_flops + self.attention_flops

    def since(self, before: Tally) -> Tally:
        """What came on top of an earlier copy; the peak is this one's."""
        return Tally(
            self.product_flops - before.product_flops,
            self.attention_flops - before.attention_flops,
            self.launches - before.launches,
            self.product_bytes - before.product_bytes,
            self.rest_bytes - before.rest_bytes,
            self.peak_bytes,
            self.by_name - before.by_name,
        )

    def plus(self, other: Tally, times: int) -> Tally:
        """These figures and ``times`` another's; the peak is these figures' own."""
        return Tally(
            self.product_flops + times * other.product_flops,
            self.attention_flops + times * other.attention_flops,
            self.launches + times * other.launches,
            self.product_bytes + times * other.product_bytes,
            self.rest_bytes + times * other.rest_bytes,
            self.peak_bytes,
            Multiset({name: self.by_name[name] + times * other.by_name[name] for name in self.by_name}),
        )

    def copy(self) -> Tally:
        """These figures, apart from the ones still growing."""
        return replace(self, by_name=self.by_name.copy())


class Counter(TorchDispatchMode):
    """Enter it inside the fake mode; read :attr:`tally`.

    Args:
        device: whose memory is followed.
        memory_alone: count no kernels, which takes a quarter of the time.
    """

    def __init__(self, device: str = "cpu", memory_alone: bool = False) -> None:
        super().__init__()
        self._device = device
        self._memory_alone = memory_alone
        self.tally = Tally()
        self.live = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the kernel and count it."""
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        # Storages of the inputs first: an in-place kernel's output is one of them.
        given = {_key(tensor) for tensor in inputs}
        out = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        made = [tensor for tensor in outputs if _key(tensor) not in given]
        for tensor in made:
            self._keep(tensor)
        if not self._memory_alone:
            self._count(func, args, kwargs, inputs, made)
        return out

    @contextmanager
    def part(self) -> Iterator[Tally]:
        """Count what happens inside on its own; its peak is relative to what is alive at the beginning."""
        before, live, outer_peak = self.tally.copy(), self.live, self.tally.peak_bytes
        self.tally.peak_bytes = self.live
        part = Tally()
        yield part
        inner = self.tally.since(before)
        vars(part).update(vars(inner))
        part.peak_bytes = self.tally.peak_bytes - live
        self.tally.peak_bytes = max(outer_peak, self.tally.peak_bytes)

    def kernel(self, name: str, reads: Iterable[Tensor], writes: Iterable[Tensor]) -> None:
        """Count one launch of a kernel that no dispatcher sees, by the tensors it declares."""
        self._launch(name, sum(map(tensor_bytes, (*reads, *writes))))

    def leave_out(self, tensor: Tensor) -> None:
        """Count the memory of ``tensor`` no longer: it stands for memory of the host."""
        self._drop(tensor.untyped_storage()._cdata)

    def _keep(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known or tensor.device.type != self._device:
            return
        size = int(storage.nbytes())
        self._known[key] = size
        self.live += size
        self.tally.peak_bytes = max(self.tally.peak_bytes, self.live)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.live -= self._known.pop(key, 0)

    def _count(self, func: Any, args: Any, kwargs: Any, inputs: list[Tensor], made: list[Tensor]) -> None:
        library, name = func._schema.name.split("::")
        if name == "product8":
            self.tally.launches += 1
            self.tally.product_flops += product_flops(name, [args[0], args[2]])
            self.tally.product_bytes += sum(map(tensor_bytes, (*inputs, *made)))
            return
        if library == "lorakiln":
            self._launch(name, kernels_traffic.moved(name, args, made).bytes)
            return
        written = written_by(func, args, kwargs)
        if name in NO_KERNEL or (not made and not written):
            return  # a view, or memory handed out
        # What `out=` names and what a copy fills are not read.
        blind = written if name in WRITES_ONLY or "out" in kwargs else []
        read = [tensor for tensor in inputs if not any(tensor is other for other in blind)]
        size = sum(map(tensor_bytes, (*read, *made, *written)))
        if name in PRODUCTS:
            self.tally.launches += 1
            self.tally.product_flops += product_flops(name, inputs)
            self.tally.product_bytes += size
        elif name.startswith(ATTENTION):
            self.tally.launches += 1
            self.tally.attention_flops += attention_flops(inputs, backward="backward" in name)
            self.tally.product_bytes += size
        else:
            self._launch(name, size)

    def _launch(self, name: str, size: int) -> None:
        self.tally.launches += 1
        self.tally.rest_bytes += size
        self.tally.by_name[name] += size


def written_by(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that a kernel changes in place or is told to write to."""
    values = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    changed = [
        values[argument.name]
        for argument in func._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write and argument.name in values
    ]
    return [leaf for leaf in tree_leaves(changed) if isinstance(leaf, Tensor)]


def tensor_bytes(tensor: Tensor) -> int:
    """Bytes of the values of ``tensor``, those repeated by a stride of zero once."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(size if stride else 1 for size, stride in sizes) * tensor.element_size()


def product_flops(name: str, inputs: list[Tensor]) -> float:
    """Twice the multiplications of a matrix product, from its two factors."""
    first, second = (inputs[1], inputs[2]) if name.startswith(("addmm", "baddbmm", "_addmm")) else inputs[:2]
    return 2.0 * math.prod(first.shape) * second.shape[-1]


def attention_flops(inputs: list[Tensor], backward: bool) -> float:
    """Two products forward, five backward: the scores are formed again (FlashAttention, arXiv 2205.14135)."""
    query, key, value = inputs[1:4] if backward else inputs[:3]
    batch, heads, length, width = query.shape
    forward = 2.0 * batch * heads * length * key.shape[-2] * (width + value.shape[-1])
    return forward * (2.5 if backward else 1.0)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
