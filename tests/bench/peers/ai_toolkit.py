"""ai-toolkit's LoRA network from a checkout around diffusers' transformer.

Its adapters are float32 and run outside autocast: inputs go up to float32 for them, and their result comes down.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
from torch import Tensor

from engine.models.flux import FluxTransformer
from tests.bench.peers.case import Batch, Case, Contender, Matrices
from tests.bench.peers.checkout import on_path
from tests.bench.peers.on_diffusers import OnDiffusers

MODULATION = ["norm.linear", "norm1.linear", "norm1_context.linear"]
"""Trained by its default; left out for equal settings."""


class AiToolkit(OnDiffusers):
    """ai-toolkit."""

    def __init__(self, case: Case, model: FluxTransformer, adapter: Matrices, checkout: Path) -> None:
        with on_path(checkout):
            self.special = importlib.import_module("toolkit.lora_special")
        super().__init__(case, model, adapter)

    def adapt(self, names: list[str]) -> None:
        """The network on all linears of the blocks but the modulation's."""
        case = self.case
        self.network = self.special.LoRASpecialNetwork(
            text_encoder=None,
            unet=self.model,
            lora_dim=case.rank,
            alpha=case.rank,
            train_text_encoder=False,
            train_unet=True,
            is_flux=True,
            transformer_only=True,
            target_lin_modules=["FluxTransformer2DModel"],
            ignore_if_contains=MODULATION,
        )
        self.network.apply_to(None, self.model, False, True)
        self.network.force_to(case.device, torch.float32)
        self.network._update_torch_multiplier()
        self.network.train()
        names_of = {id(module): name for name, module in self.model.named_modules()}
        self.loras = {names_of[id(lora.org_module[0])]: lora for lora in self.network.unet_loras}
        if set(self.loras) != set(names):
            raise RuntimeError(f"{len(self.loras)} adapters instead of {len(names)}")
        if case.checkpointing:
            self.model.enable_gradient_checkpointing()

    def pair(self, name: str) -> tuple[Tensor, Tensor]:
        """Its lora_down and lora_up."""
        return self.loras[name].lora_down.weight, self.loras[name].lora_up.weight

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error; no autocast. The network counts while its context is open, the backward's too."""
        self.network.is_active = True
        predicted = self.predict(batch)
        errors = (predicted.float() - batch.target.float()) ** 2
        return errors.reshape(batch.target.shape[0], -1).mean(1).mean()


def build(case: Case, model: FluxTransformer, adapter: Matrices, checkout: Path) -> Contender:
    """The contender."""
    return AiToolkit(case, model, adapter, checkout)
