"""Names and shapes of our files against those that kohya sd-scripts writes (golden data)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from flux_reference import all_kinds
from safetensors import safe_open

from engine.config import LoraConfig
from engine.lora.adapter import describe_linears, inject
from engine.lora.formats import layout_tensors, save_lora
from engine.lora.targets import select_targets
from engine.models.flux import FluxParams, FluxTransformer

Golden = Callable[[str], list[Path]]


def _layouts(golden: Golden) -> dict[str, dict[str, list[int]]]:
    layouts: dict[str, dict[str, list[int]]] = json.loads(golden("lora_layouts.json")[0].read_text())["layouts"]
    # The transformer's part alone: CLIP-L is not trained.
    return {
        name: {key: shape for key, shape in tensors.items() if key.startswith("lora_unet_")}
        for name, tensors in layouts.items()
    }


def _full_size() -> FluxTransformer:
    with torch.device("meta"):
        return FluxTransformer(FluxParams())


def test_all_at_full_size_has_the_912_golden_names_and_shapes(golden: Golden) -> None:
    wanted = max(_layouts(golden).values(), key=len)
    assert len(wanted) == 912
    model, config = _full_size(), LoraConfig(rank=16, targets="all")
    targets = select_targets(describe_linears(model, all_kinds(model.params)), config)
    lora = inject(model, targets, config, seed=0)
    assert lora.num_parameters == 16 * 4_786_176
    state = {f"{name}.lora_{kind}.weight": getattr(module, kind).detach()
             for name, module in lora.modules.items() for kind in ("down", "up")}  # fmt: skip
    tensors = layout_tensors(state, targets, "kohya")
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == wanted


def test_a_written_file_has_the_golden_names_and_shapes(golden: Golden, tmp_path: Path) -> None:
    wanted = max(_layouts(golden).values(), key=len)
    model, config = _full_size(), LoraConfig(rank=16, targets="all")
    targets = select_targets(describe_linears(model, all_kinds(model.params)), config)
    zero = torch.zeros(())
    state = {}
    for target in targets:
        state[f"{target.name}.lora_down.weight"] = zero.expand(target.rank, target.in_features)
        state[f"{target.name}.lora_up.weight"] = zero.expand(target.out_features, target.rank)
    save_lora(tmp_path / "lora.safetensors", state, targets, "kohya", "bfloat16", {})
    with safe_open(tmp_path / "lora.safetensors", framework="pt") as file:
        found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        assert all(file.get_tensor(name) == 16.0 for name in found if name.endswith(".alpha"))
    assert found == wanted


def test_single_blocks_alone_at_rank_4(golden: Golden) -> None:
    wanted = min(_layouts(golden).values(), key=len)
    model = _full_size()
    config = LoraConfig(rank=4, targets="all", double_blocks="none")
    targets = select_targets(describe_linears(model, all_kinds(model.params)), config)
    zero = torch.zeros(())
    state = {}
    for target in targets:
        state[f"{target.name}.lora_down.weight"] = zero.expand(target.rank, target.in_features)
        state[f"{target.name}.lora_up.weight"] = zero.expand(target.out_features, target.rank)
    tensors = layout_tensors(state, targets, "kohya")
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == wanted
