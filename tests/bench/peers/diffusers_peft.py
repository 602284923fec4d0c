"""diffusers' transformer with peft's adapters, stepped as diffusers' LoRA training script does.

Adapters are float32 under autocast, as its ``cast_training_params`` makes them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from engine.models.flux import FluxTransformer
from tests.bench.peers.case import Case, Contender, Matrices
from tests.bench.peers.on_diffusers import OnDiffusers


class DiffusersPeft(OnDiffusers):
    """diffusers + peft."""

    def adapt(self, names: list[str]) -> None:
        """peft's own injection."""
        from peft import LoraConfig, inject_adapter_in_model

        rank = self.case.rank
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=names, init_lora_weights=False)
        self.model = inject_adapter_in_model(config, self.model).train()
        for name, value in self.model.named_parameters():
            value.requires_grad_("lora_" in name)
            if "lora_" in name:
                value.data = value.data.to(torch.float32)
        if self.case.checkpointing:
            self.model.enable_gradient_checkpointing()

    def pair(self, name: str) -> tuple[Tensor, Tensor]:
        """peft's A and B."""
        module = self.model.get_submodule(name)
        return module.lora_A["default"].weight, module.lora_B["default"].weight


def build(case: Case, model: FluxTransformer, adapter: Matrices, _: Path | None = None) -> Contender:
    """The contender; its two packages are those installed."""
    return DiffusersPeft(case, model, adapter)
