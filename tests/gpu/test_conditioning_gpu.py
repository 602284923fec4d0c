"""The modulation cache on a GPU: the same bits as without it, little memory, and what a pass costs.

One command: ``pytest -m gpu -s tests/gpu/test_conditioning_gpu.py``; it prints the figures that the documents give as
predictions (time of a pass from pinned and pageable memory and from a file, hand-over of a sample).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from engine.memory.conditioning import CHUNK, PIECE, Conditioning, HeldLayers, HostMemory, PoolMemory
from engine.memory.frozen import Dense, FrozenLinear
from engine.memory.pinned import HostPool
from engine.models.flux import Embedder, FluxParams
from engine.models.modulation import ModulationPlace, modulation_places

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
FULL = FluxParams()
PLACES = modulation_places(FULL.depth, FULL.depth_single_blocks)


class Embedding(nn.Module):
    """FLUX.1-dev's embedders with random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.time_in, self.guidance_in = Embedder(256, FULL.hidden_size), Embedder(256, FULL.hidden_size)
        self.vector_in = Embedder(FULL.vec_in_dim, FULL.hidden_size)


def layer(place: ModulationPlace, device: str) -> FrozenLinear:
    draw = torch.Generator(device).manual_seed(place.first)
    shape = (place.count * FULL.hidden_size, FULL.hidden_size)
    weight = torch.randn(shape, generator=draw, device=device, dtype=torch.bfloat16)
    return Dense(weight * 0.02, torch.zeros(shape[0], device=device, dtype=torch.bfloat16))


@pytest.fixture(scope="module")
def embedding() -> Embedding:
    torch.manual_seed(0)
    with torch.device("cuda"):
        return Embedding().bfloat16().requires_grad_(False)


@pytest.fixture(scope="module")
def on_gpu() -> dict[str, FrozenLinear]:
    """6.5 GB of layers, on the GPU."""
    return {place.name: layer(place, "cuda") for place in PLACES}


def asked(count: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    y = torch.randn(count, FULL.vec_in_dim, generator=draw)
    return torch.rand(count, generator=draw), y, torch.full((count,), 3.5)


def test_bits_do_not_depend_on_count_or_place(embedding: Embedding, on_gpu: dict[str, FrozenLinear]) -> None:
    compute = Conditioning(embedding, PLACES, HeldLayers(on_gpu))
    given = asked(37)
    whole = compute(*given)
    for count in (1, 2, PIECE, PIECE + 1):
        assert torch.equal(compute(*(value[:count] for value in given)).rows, whole.rows[:count])
    for shift in range(1, PIECE):
        moved = compute(*(value.roll(shift, 0) for value in given))
        assert torch.equal(moved.rows.roll(-shift, 0), whole.rows)


def timed(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


@pytest.mark.parametrize("pinned", [True, False])
def test_a_pass_from_the_host(embedding: Embedding, on_gpu: dict[str, FrozenLinear], pinned: bool) -> None:
    """The same bits from layers that travel; two slots and the results are all that the GPU holds meanwhile."""
    host: dict[str, FrozenLinear] = {}
    for name, there in on_gpu.items():
        tensors = {key: tensor.cpu() for key, tensor in there.tensors().items()}
        host[name] = there.with_tensors({k: t.pin_memory() if pinned else t for k, t in tensors.items()})
    memory: HostMemory = PoolMemory(HostPool(2**31, pin=True))
    compute = Conditioning(embedding, PLACES, HeldLayers(host), memory)
    given, kept = asked(CHUNK), compute.reserve(CHUNK)
    compute.table(*given, into=kept)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    seconds = timed(lambda: compute.table(*given, into=kept))
    peak = torch.cuda.max_memory_allocated() - before
    handed = timed(lambda: [kept.take(n, 1, "cuda") for n in range(64)]) / 64
    wanted = Conditioning(embedding, PLACES, HeldLayers(on_gpu)).table(*given)
    assert torch.equal(kept.rows, wanted.rows)
    assert peak < 300e6
    each = f"{seconds / CHUNK * 1e3:.2f} ms a sample, {6.4949 / seconds:.1f} GB/s, hand-over {handed * 1e3:.3f} ms"
    how = "pinned" if pinned else "pageable"
    print(f"\n{how}: {seconds:.3f} s a table of {CHUNK}, {each}, {peak / 1e6:.0f} MB on the GPU")


def test_a_step_without_the_cache(embedding: Embedding, on_gpu: dict[str, FrozenLinear]) -> None:
    compute = Conditioning(embedding, PLACES, HeldLayers(on_gpu))
    given = [value.cuda() for value in asked(1)]
    compute(*given)
    seconds = min(timed(lambda: compute(*given)) for _ in range(5))
    print(f"\nresident, one sample: {seconds * 1e3:.2f} ms")
