"""kohya sd-scripts' transformer and LoRA network from a checkout, stepped with the statements of its training step.

Equal settings: adapters on attention and MLP linears only (``*_mod_dim = 0``; its default trains modulation too),
float32 adapters under autocast, inputs marked as needing gradient where checkpointing is on, as it does.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
from torch import Tensor

from engine.models.flux import FluxTransformer
from tests.bench.peers.case import Batch, Case, Contender, Matrices, adamw, autocast
from tests.bench.peers.checkout import on_path


class Kohya:
    """kohya sd-scripts."""

    def __init__(self, case: Case, model: FluxTransformer, adapter: Matrices, checkout: Path) -> None:
        self.case = case
        with on_path(checkout):
            models = importlib.import_module("library.flux_models")
            lora = importlib.import_module("networks.lora_flux")
        p = case.params
        fields = {key: value for key, value in p.to_dict().items() if key not in ("out_channels",)}
        with torch.device("meta"):
            self.model = models.Flux(models.FluxParams(**fields))
        self.model.load_state_dict(model.state_dict(), strict=True, assign=True)
        self.model.requires_grad_(False)
        self.model.train()
        if case.checkpointing:
            self.model.enable_gradient_checkpointing()
        names = {module: name for name, module in self.model.named_modules()}
        chosen = {f"lora_unet_{name.replace('.', '_')}": case.rank for name in adapter}
        self.network = lora.LoRANetwork(
            [], self.model, modules_dim=chosen, modules_alpha=dict.fromkeys(chosen, case.rank)
        )
        self.modules = {names[module.org_module]: module for module in self.network.unet_loras}
        if set(self.modules) != set(adapter):
            raise RuntimeError(f"{len(self.modules)} adapters instead of {len(adapter)}")
        self.network.apply_to([], self.model, apply_text_encoder=False, apply_unet=True)
        self.network.to(case.device)
        self.network.train()
        with torch.no_grad():
            for name, (down, up) in adapter.items():
                self.modules[name].lora_down.weight.copy_(down)
                self.modules[name].lora_up.weight.copy_(up)
        self.parameters = list(self.network.parameters())
        self.optimizer = adamw(self.parameters)

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error, by sample and then over them."""
        noisy, states, pooled = batch.noisy, batch.states, batch.pooled
        img_ids, guidance = batch.img_ids, batch.guidance
        if self.case.checkpointing:
            noisy, states, pooled, img_ids, guidance = (
                value.detach().clone().requires_grad_() for value in (noisy, states, pooled, img_ids, guidance)
            )
        with autocast(self.case):
            predicted = self.model(
                img=noisy,
                img_ids=img_ids,
                txt=states,
                txt_ids=batch.txt_ids,
                y=pooled,
                timesteps=batch.sigmas,
                guidance=guidance,
            )
        errors = torch.nn.functional.mse_loss(predicted.float(), batch.target.float(), reduction="none")
        return errors.mean([1, 2]).mean()

    def gradients(self) -> Matrices:
        """Of its own linears."""
        return {name: (m.lora_down.weight.grad, m.lora_up.weight.grad) for name, m in self.modules.items()}

    def step(self, batch: Batch) -> float:
        """Forward, backward, clip, step; the loss is read every time."""
        loss = self.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach().item()


def build(case: Case, model: FluxTransformer, adapter: Matrices, checkout: Path) -> Contender:
    """The contender."""
    return Kohya(case, model, adapter, checkout)
