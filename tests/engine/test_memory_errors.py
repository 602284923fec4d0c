"""Velocity and LoRA gradient of a packed base stay within stated limits of the plain float32 one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from flux_steps import error
from pocket import FILES
from precision_errors import (
    FULL_WIDTH,
    WAYS,
    adapters_for,
    compare,
    pocket_sample,
    random_model,
    random_sample,
    step,
)
from torch import Tensor

from engine.memory.base_file import block_templates
from engine.memory.calibration import LIMITS
from engine.memory.load import LoadedBase, load_base
from engine.memory.pinned import HostPool
from engine.memory.placement import Placement, plan_blocks
from engine.memory.precision import Packed8, Products, pack
from engine.memory.products8 import Choice

POCKET_LIMITS = {
    ("auto", "wide"): (1e-6, 1e-5, 1e-5),
    ("int8", "wide"): (0.012, 0.022, 0.04),
    ("int8", "int8"): (0.028, 0.036, 0.055),
    ("fp8", "wide"): (0.045, 0.07, 0.16),
    ("fp8", "fp8"): (0.06, 0.09, 0.18),
    ("nf4", "wide"): (0.15, 0.22, 0.55),
}
"""Velocity; LoRA gradient for the same gradient of the velocity; LoRA gradient of the loss. Half as much again as
measured. The last is large because the pocket model has learned its pictures: little is left of the loss."""

FULL_LIMITS = {
    ("int8", "wide"): (0.007, 0.013),
    ("int8", "int8"): (0.012, 0.022),
    ("fp8", "wide"): (0.02, 0.04),
    ("fp8", "fp8"): (0.028, 0.053),
    ("nf4", "wide"): (0.07, 0.14),
}
"""Velocity and LoRA gradient of one random single block, 3072 wide."""

LINEAR_LIMITS = {("int8", False): 0.011, ("int8", True): 0.015, ("fp8", False): 0.03, ("fp8", True): 0.042,
                 ("nf4", False): 0.105}  # fmt: skip
"""A product with a random linear from 3072 to 3072 features, forward or back, packed weight included."""


def test_the_pocket_model_in_every_precision() -> None:
    found = compare(FILES / "flux-pocket.safetensors", pocket_sample())
    assert list(found) == list(POCKET_LIMITS)
    for way, limits in POCKET_LIMITS.items():
        errors = found[way]
        for one, limit in zip((errors.velocity, errors.passed_back, errors.gradient), limits, strict=True):
            assert one <= limit, way
    for way in (("int8", "int8"), ("fp8", "fp8")):
        assert len(found[way].seen) == 24
        assert "of 48 products of blocks run in 8 bit" in found[way].words
        assert found[way].velocity > found[way[0], "wide"].velocity  # it did run in 8 bit


@pytest.mark.parametrize(("precision", "kind"), WAYS)
def test_streaming_a_packed_base_changes_no_bit(precision: str, kind: str, tmp_path: Path) -> None:
    """All blocks from host memory, filled from the checkpoint and then from the packed copy."""
    path, sample, choice = FILES / "flux-pocket.safetensors", pocket_sample(1), Choice(kind)  # type: ignore[arg-type]

    def base_with(**more: Any) -> LoadedBase:
        return load_base(path, device="cpu", dtype=torch.bfloat16, precision=precision, choice=choice, **more)  # type: ignore[arg-type]

    resident = base_with()
    lora = adapters_for(resident.params)
    wanted = step(resident, lora, sample)
    templates = block_templates(resident.params, precision, torch.bfloat16)  # type: ignore[arg-type]
    for _start in ("from the file", "from the copy"):
        placement = Placement(plan_blocks(templates, len(templates)), HostPool(2**30), "cpu")
        base = base_with(cache_dir=tmp_path, room=placement.room, place=placement.place)
        found = step(base, lora, sample, source=placement.source(reread=base.reread))
        assert torch.equal(found[0], wanted[0])
        assert torch.equal(found[1], wanted[1])


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("way", LINEAR_LIMITS)
def test_linears_of_full_width(way: tuple[str, bool]) -> None:
    precision, fast = way
    weight, x, grad = draw(3072, 3072, seed=1), draw(24, 3072, seed=2), draw(24, 3072, seed=3)
    linear = pack(weight, None, precision, torch.float32, Products(fast, fast, fast))  # type: ignore[arg-type]
    assert error(linear.forward(x), x @ weight.T) < LINEAR_LIMITS[way]
    assert error(linear.input_grad(grad), grad @ weight) < LINEAR_LIMITS[way]
    if isinstance(linear, Packed8):
        assert LINEAR_LIMITS[precision, True] < LIMITS[linear.weight.dtype] + LINEAR_LIMITS[precision, False]


@pytest.mark.slow
def test_a_random_block_of_full_width(tmp_path: Path) -> None:
    path = random_model(tmp_path / "m.safetensors", FULL_WIDTH)
    found = compare(path, random_sample(FULL_WIDTH), [way for way in WAYS if way in FULL_LIMITS])
    for way, (velocity, gradient) in FULL_LIMITS.items():
        assert found[way].velocity < velocity, way
        assert found[way].passed_back < gradient, way
