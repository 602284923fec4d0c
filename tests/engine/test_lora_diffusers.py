"""Our LoRA files in diffusers: every key is used, and its model answers as ours does with the adapter in."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import FluxLoraLoaderMixin
from flux_reference import TINY, all_kinds, diffusers_model, diffusers_velocity, random_inputs
from torch import Tensor, nn

import engine.models.pocket
from engine.config import LoraConfig
from engine.lora.adapter import LoraSet, describe_linears, inject
from engine.lora.formats import Layout, save_lora
from engine.lora.targets import select_targets
from engine.models.flux import FluxParams, FluxTransformer
from engine.models.flux_file import load_flux

MIXED = LoraConfig(rank=4, targets="all", alpha=3.0, ranks={"img_mlp": 6, "single": 8}, alphas={"txt_attn": 1.5})


def _adapt(model: FluxTransformer, config: LoraConfig, std: float) -> LoraSet:
    lora = inject(model, select_targets(describe_linears(model, all_kinds(model.params)), config), config, seed=0)
    generator = torch.Generator().manual_seed(1)
    for up in lora.up_parameters():
        nn.init.normal_(up, std=std, generator=generator)
    return lora


def _load(other: Any, path: Path) -> None:
    """Load a file as ``FluxPipeline.load_lora_weights`` does, and check that no key is left over on either side."""
    state, alphas, metadata = FluxLoraLoaderMixin.lora_state_dict(
        str(path), return_alphas=True, return_lora_metadata=True
    )
    FluxLoraLoaderMixin.load_lora_into_transformer(
        state, network_alphas=alphas, transformer=other, adapter_name="ours", metadata=metadata
    )
    given = {name.removeprefix("transformer.") for name in state}
    taken = {name.replace(".ours.weight", ".weight") for name, _ in other.named_parameters() if ".lora_" in name}
    assert given == taken
    for name, parameter in other.named_parameters():
        if ".lora_" in name:
            assert torch.equal(parameter, state["transformer." + name.replace(".ours.weight", ".weight")])


def _relative(one: Tensor, other: Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("config", [MIXED, LoraConfig(rank=4), LoraConfig(rank=4, alpha=1.0, double_blocks="1")])
def test_tiny_model_through_the_diffusers_layout(
    tmp_path: Path, config: LoraConfig, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    model = FluxTransformer(TINY).eval()
    other, inputs = diffusers_model(model), random_inputs(TINY)
    with torch.no_grad():
        base = model(**inputs)
        lora = _adapt(model, config, std=2.0)
        adapted = model(**inputs)
    assert _relative(base, adapted) > 0.1
    save_lora(tmp_path / "lora.safetensors", lora.state(), lora.targets, "diffusers", "float32", {"ss_seed": "1"})
    with caplog.at_level(logging.WARNING):
        _load(other, tmp_path / "lora.safetensors")
    assert "unexpected" not in caplog.text
    assert _relative(diffusers_velocity(other, inputs), adapted) < 1e-5


def test_pocket_model_through_the_diffusers_layout(tmp_path: Path) -> None:
    """The same with trained weights, through the engine's own loader."""
    file = Path(engine.models.pocket.__file__).parent / "files" / "flux-pocket.safetensors"
    model = load_flux(file, "cpu", torch.float32).eval()
    other, inputs = diffusers_model(model), random_inputs(model.params, side=8)
    with torch.no_grad():
        base = model(**inputs)
        lora = _adapt(model, MIXED, std=0.5)
        adapted = model(**inputs)
    assert _relative(base, adapted) > 0.1
    save_lora(tmp_path / "lora.safetensors", lora.state(), lora.targets, "diffusers", "float32", {"ss_seed": "1"})
    _load(other, tmp_path / "lora.safetensors")
    theirs = diffusers_velocity(other, inputs)
    assert _relative(theirs, adapted) < 1e-4
    assert _relative(theirs - base, adapted - base) < 1e-3


def _full_width() -> FluxTransformer:
    """FLUX.1's width with one block of each kind. All weights are windows into one pool of noise: 0.2 GB, not 2."""
    params = FluxParams(depth=1, depth_single_blocks=1)
    with torch.device("meta"):
        model = FluxTransformer(params)
    pool = torch.randn(70_000_000, generator=torch.Generator().manual_seed(0)).mul_(0.02)
    state, start = {}, 0
    for name, tensor in model.state_dict().items():
        state[name] = pool[start : start + tensor.numel()].view(tensor.shape)
        if name.endswith(".scale"):
            state[name] = torch.ones(tensor.shape)
        start = (start + 104_729) % (len(pool) - 67_000_000)
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_full_width_velocity_equals_diffusers(tmp_path: Path, layout: Layout) -> None:
    model = _full_width()
    other, inputs = diffusers_model(model), random_inputs(model.params, batch=1)
    with torch.no_grad():
        base = model(**inputs)
        lora = _adapt(model, MIXED, std=0.1)
        adapted = model(**inputs)
    assert _relative(base, adapted) > 0.1
    assert len(lora.targets) == 13
    save_lora(tmp_path / "lora.safetensors", lora.state(), lora.targets, layout, "float32", {"ss_seed": "1"})
    _load(other, tmp_path / "lora.safetensors")
    theirs = diffusers_velocity(other, inputs)
    assert _relative(theirs, adapted) < 1e-4
    assert _relative(theirs - base, adapted - base) < 1e-3
