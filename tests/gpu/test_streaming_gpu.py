"""Streaming and offloading on a GPU: the bits of a resident run, what overlaps, how soon a release is over.

One command: ``pytest -m gpu -s tests/gpu/test_streaming_gpu.py``; it prints the figures that the documents give as
predictions (rate of the link, a step with streamed blocks against a resident one, seconds of a release).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from engine.blocks.plain import plain_blocks
from engine.blocks.transformer import LeanFlux
from engine.config import LoraConfig
from engine.lora.adapter import LoraSet, describe_linears, inject
from engine.lora.targets import select_targets
from engine.memory.copier import CudaCopier
from engine.memory.frozen import BlockWeights, block_tensors
from engine.memory.offload import Offloader
from engine.memory.pinned import HostPool, over
from engine.memory.placement import Placement, plan_blocks
from engine.memory.streaming import Streamer
from engine.models.family import FLUX1
from engine.models.flux import FluxParams, FluxTransformer, image_ids, text_ids

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
PARAMS = FluxParams(depth=4, depth_single_blocks=8)
"""A fifth of FLUX.1-dev, its blocks at full width: 3.6 GB in bfloat16."""
BLOCKS = 12
SIDE = 1024


def build() -> tuple[FluxTransformer, LoraSet]:
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = FluxTransformer(PARAMS).bfloat16()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.02)
    config = LoraConfig(rank=16, alpha=16)
    targets = select_targets(describe_linears(model, FLUX1.lora_modules(model)), config)
    return model, inject(model, targets, config, seed=3)


def arguments(seed: int, side: int = SIDE) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    tokens, text = (side // 16) ** 2, 512
    with torch.device("cuda"):
        return {
            "img": torch.randn(1, tokens, PARAMS.in_channels),
            "img_ids": image_ids(1, side // 8, side // 8, "cuda"),
            "txt": torch.randn(1, text, PARAMS.context_in_dim),
            "txt_ids": text_ids(1, text, "cuda"),
            "timesteps": torch.rand(1),
            "y": torch.randn(1, PARAMS.vec_in_dim),
            "guidance": torch.full((1,), 3.5),
        }


def source(blocks: Sequence[BlockWeights], swap: int, copier: CudaCopier, reread: bool = True) -> Streamer:
    device = torch.device("cuda")
    kept = [over(block, {name: t.cpu() for name, t in block_tensors(block).items()}) for block in blocks]
    placement = Placement(plan_blocks(blocks, swap), HostPool(pin=True), device)
    for number, block in enumerate(blocks):
        placement.room(number, block)
        placement.place(number, block)
    return placement.source(copier, reread=kept.__getitem__ if reread else None)


def run(swap: int, offloaded: bool, steps: int, release: bool = False) -> tuple[Tensor, Tensor, float, CudaCopier]:
    """Losses, adapters, seconds of the median step, and what counted the copies."""
    model, lora = build()
    copier = CudaCopier(torch.device("cuda"))
    offload = Offloader(copier, HostPool(pin=True)) if offloaded else None
    lean = LeanFlux.from_plain(model, lora, checkpointing="offload" if offloaded else "full", offload=offload)
    lean.source = source(plain_blocks(model), swap, copier)
    downs, ups = lora.flat_groups()
    optimizer = torch.optim.AdamW([*downs, *ups], 1e-3)
    losses, seconds = [], []
    for step in range(steps):
        if release and step == steps // 2:
            lean.source.leave()
            lean.source.come_back()
        inputs = arguments(step)
        torch.cuda.synchronize()
        began = time.perf_counter()
        loss = lean(**inputs).float().square().mean()
        loss.backward()
        optimizer.step()
        lora.refresh()
        lora.zero_grad()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        losses.append(loss.detach())
    return torch.stack(losses), lora.weights.detach().clone(), sorted(seconds)[len(seconds) // 2], copier


@pytest.fixture(scope="module")
def resident():
    return run(0, offloaded=False, steps=20)


@pytest.mark.parametrize(("swap", "offloaded", "release"), [(6, False, False), (12, True, False), (6, True, True)])
def test_twenty_steps_are_bit_identical_to_resident_ones(swap, offloaded, release, resident):
    losses, weights, seconds, copier = run(swap, offloaded, 20, release)
    print(
        f"\n{swap} of {BLOCKS} streamed, offloaded {offloaded}: {seconds:.3f} s a step, resident {resident[2]:.3f} s"
    )
    print(f"  {copier.loaded_bytes / 20 / 1e9:.2f} GB in and {copier.stored_bytes / 20 / 1e9:.2f} GB out a step")
    assert torch.equal(losses, resident[0]) and torch.equal(weights, resident[1])


def test_the_link_from_pinned_memory():
    pool = HostPool(pin=True)
    buffer, target = pool.take(453_000_000), torch.empty(453_000_000, dtype=torch.uint8, device="cuda")
    assert buffer.pinned and buffer.data.is_pinned(), pool.words()
    for _ in range(3):
        torch.cuda.synchronize()
        began = time.perf_counter()
        target.copy_(buffer.data, non_blocking=True)
        asked = time.perf_counter() - began
        torch.cuda.synchronize()
        took = time.perf_counter() - began
    print(f"\n{buffer.data.numel() / took / 1e9:.1f} GB/s from pinned memory; the host waited {asked * 1e6:.0f} us")
    assert asked < took / 4
    pool.close()


def test_a_refused_registration_leaves_no_error_behind():
    pool = HostPool(pin=True)
    buffer = pool.take(2**20)
    from engine.memory import pinned

    assert pinned._register(buffer.data)  # registered already: the driver refuses
    assert torch.ones(4, device="cuda").sum().item() == 4
    pool.close()


def test_a_release_is_over_within_a_second():
    model, _ = build()
    streamer = source(plain_blocks(model), 6, CudaCopier(torch.device("cuda")))
    del model
    torch.cuda.empty_cache()
    held = torch.cuda.memory_allocated()
    began = time.perf_counter()
    streamer.leave()
    torch.cuda.empty_cache()
    left = time.perf_counter() - began
    freed = held - torch.cuda.memory_allocated()
    began = time.perf_counter()
    streamer.come_back()
    torch.cuda.synchronize()
    print(f"\nleft {freed / 1e9:.2f} GB in {left:.3f} s, back in {time.perf_counter() - began:.2f} s")
    assert left < 1.0
