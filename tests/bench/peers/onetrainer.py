"""OneTrainer's LoRA modules and checkpoint layers from a checkout around diffusers' transformer, under autocast.

Equal settings: no compile and no quantisation; its strongest settings need a GPU.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
from torch import Tensor

from engine.models.flux import FluxTransformer
from tests.bench.peers.case import Case, Contender, Matrices
from tests.bench.peers.checkout import on_path
from tests.bench.peers.on_diffusers import OnDiffusers


class OneTrainer(OnDiffusers):
    """OneTrainer."""

    def __init__(self, case: Case, model: FluxTransformer, adapter: Matrices, checkout: Path) -> None:
        with on_path(checkout):
            self.lora = importlib.import_module("modules.module.LoRAModule")
            self.checkpoints = importlib.import_module("modules.util.checkpointing_util")
            self.config = importlib.import_module("modules.util.config.TrainConfig").TrainConfig.default_values()
        super().__init__(case, model, adapter)

    def adapt(self, names: list[str]) -> None:
        """Its wrapper on the named linears, hooked in, then its checkpointing of the blocks."""
        case, config = self.case, self.config
        config.lora_rank, config.lora_alpha = case.rank, float(case.rank)
        config.train_device, config.compile = case.device, False
        config.layer_filter_regex = True
        wrapper = self.lora.LoRAModuleWrapper(
            self.model, "transformer", config, [f"^{name.replace('.', chr(92) + '.')}$" for name in names]
        )
        self.loras = {name.removeprefix("transformer."): module for name, module in wrapper.lora_modules.items()}
        if set(self.loras) != set(names):
            raise RuntimeError(f"{len(self.loras)} adapters instead of {len(names)}")
        wrapper.hook_to_module()
        for module in self.loras.values():
            module.to(case.device, torch.float32).requires_grad_(True)
        if case.checkpointing:
            part = config.prior
            part.gradient_checkpointing = True
            self.checkpoints.enable_checkpointing_for_flux_transformer(self.model, config, part)

    def pair(self, name: str) -> tuple[Tensor, Tensor]:
        """Its lora_down and lora_up."""
        return self.loras[name].lora_down.weight, self.loras[name].lora_up.weight


def build(case: Case, model: FluxTransformer, adapter: Matrices, checkout: Path) -> Contender:
    """The contender."""
    return OneTrainer(case, model, adapter, checkout)
