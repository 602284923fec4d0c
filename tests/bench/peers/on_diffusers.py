"""What three contenders share: diffusers' transformer, with adapters of their own on each of q, k and v.

The separate adapters begin as one on the fused projection, so that loss and gradients can be compared: the gradients
of their down matrices add up to the fused one's, those of their up matrices are its rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from engine.lora.layouts import PLACES
from engine.models.flux import FluxTransformer
from tests.bench.peers.case import Batch, Case, Matrices, adamw, autocast
from tests.engine.flux_reference import diffusers_model


class OnDiffusers(ABC):
    """A step around diffusers' transformer."""

    def __init__(self, case: Case, model: FluxTransformer, adapter: Matrices) -> None:
        self.case = case
        self.places = {name: places_of(name) for name in adapter}
        self.model = diffusers_model(model).train().requires_grad_(False)
        self.adapt([part for parts in self.places.values() for part in parts])
        self._fill(adapter)
        self.parameters = [matrix for parts in self.places.values() for part in parts for matrix in self.pair(part)]
        self.optimizer = adamw(self.parameters)

    @abstractmethod
    def adapt(self, names: list[str]) -> None:
        """Put adapters on these modules, and switch checkpointing on if the case has it."""

    @abstractmethod
    def pair(self, name: str) -> tuple[Tensor, Tensor]:
        """Down and up of one module's adapter."""

    def _fill(self, adapter: Matrices) -> None:
        with torch.no_grad():
            for name, (down, up) in adapter.items():
                first = 0
                for part in self.places[name]:
                    own_down, own_up = self.pair(part)
                    rows = own_up.shape[0]
                    own_down.copy_(down)
                    own_up.copy_(up[first : first + rows])
                    first += rows

    def predict(self, batch: Batch) -> Tensor:
        """The velocity (B, S, C)."""
        predicted: Tensor = self.model(
            hidden_states=batch.noisy.to(self.case.dtype),
            timestep=batch.sigmas,
            guidance=batch.guidance,
            pooled_projections=batch.pooled.to(self.case.dtype),
            encoder_hidden_states=batch.states,
            txt_ids=batch.txt_ids[0],
            img_ids=batch.img_ids[0],
            return_dict=False,
        )[0]
        return predicted

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error, by sample and then over them."""
        with autocast(self.case):
            predicted = self.predict(batch)
        errors = (predicted.float() - batch.target.float()) ** 2
        return errors.reshape(batch.target.shape[0], -1).mean(1).mean()

    def gradients(self) -> Matrices:
        """On the fused projections."""
        found: Matrices = {}
        for name, parts in self.places.items():
            pairs = [self.pair(part) for part in parts]
            downs = torch.stack([down.grad for down, _ in pairs if down.grad is not None])
            found[name] = (downs.sum(0), torch.cat([up.grad for _, up in pairs if up.grad is not None]))
        return found

    def step(self, batch: Batch) -> float:
        """Forward, backward, clip, step; the loss is read every time."""
        loss = self.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach().item()


def places_of(name: str) -> list[str]:
    """diffusers' modules for one fused linear."""
    blocks, index, rest = name.split(".", 2)
    prefix = {"double_blocks": "transformer_blocks", "single_blocks": "single_transformer_blocks"}[blocks]
    return [f"{prefix}.{index}.{part}" for part in PLACES[blocks][rest].parts]
