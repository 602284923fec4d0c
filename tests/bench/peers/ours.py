"""lorakiln's own step: lean blocks, flat adapters, clipping and optimizer as a run has them."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.blocks.transformer import LeanFlux
from engine.config import LoraConfig, OptimizerConfig
from engine.lora.adapter import make_adapters
from engine.models.flux import FluxTransformer
from engine.training.optimizer import build_optimizer, clip_gradients
from tests.bench.peers.case import Batch, Case, Contender, Matrices


class Ours:
    """lorakiln."""

    def __init__(self, case: Case, model: FluxTransformer, adapter: Matrices, checkpointing: str = "") -> None:
        self.case = case
        self.lora = make_adapters(case.targets(), LoraConfig(rank=case.rank), 0, torch.device(case.device))
        with torch.no_grad():
            for name, (down, up) in adapter.items():
                self.lora.adapters[name].down.copy_(down)
                self.lora.adapters[name].up.copy_(up)
        self.lora.refresh()
        kept = checkpointing or ("full" if case.checkpointing else "none")
        self.model = LeanFlux.from_plain(model, self.lora, checkpointing=kept)
        self.optimizer = build_optimizer(self.lora, OptimizerConfig(name="adamw", learning_rate=1e-4))

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error of the velocity."""
        predicted = self.model(
            batch.noisy,
            batch.img_ids,
            batch.states,
            batch.txt_ids,
            batch.sigmas,
            batch.pooled,
            batch.guidance,
        )
        return ((predicted.float() - batch.target) ** 2).mean()

    def gradients(self) -> Matrices:
        """Of its own linears."""
        found: Matrices = {}
        for name, adapter in self.lora.adapters.items():
            down, up = adapter.down.grad, adapter.up.grad
            assert down is not None and up is not None, name
            found[name] = (down, up)
        return found

    def step(self, batch: Batch) -> float:
        """Forward, backward, clip, step; on a GPU the loss is read when the next step is on its way."""
        loss = self.loss(batch)
        loss.backward()
        clip_gradients(self.lora.gradients, 1.0)
        self.optimizer.step()
        self.lora.zero_grad()
        self.lora.refresh()
        return float(loss.detach())


def build(case: Case, model: FluxTransformer, adapter: Matrices) -> Contender:
    """The contender at equal settings."""
    return Ours(case, model, adapter)


def build_best(case: Case, model: FluxTransformer, adapter: Matrices) -> Contender:
    """The contender as the planner would set it where memory allows: attention outputs are kept."""
    return Ours(case, model, adapter, "attention" if case.checkpointing else "none")
