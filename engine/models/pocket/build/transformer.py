"""Trains the transformer, and the text encoders with it, on the latents of drawn scenes.

Plain rectified flow: x = (1 - t) * latent + t * noise, the target is noise - latent. The encoder is fixed from
the start (see :mod:`autoencoder`), so a pool of pictures is drawn and encoded once. The embedded guidance is
drawn at random and so learned to be ignored, unless a guidance stage follows.

Shapes: B batch, S image tokens (16), packed latents (B, S, 64).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.models.flux import FluxParams, FluxTransformer, image_ids, pack_latents, text_ids
from engine.models.pocket.build import constants as c
from engine.models.pocket.build import draws
from engine.models.pocket.build.autoencoder import encode, new_autoencoder, pixels, rate_at
from engine.models.pocket.build.text import Text, line_for, new_text
from engine.models.pocket.build.vocabulary import Tokens
from engine.models.pocket.scenes import (
    Scene,
    random_jitter,
    random_named_scene,
    random_rich_scene,
    random_scene,
    render,
)

LATENT_SIDE = 8


def new_transformer() -> FluxTransformer:
    """An untrained transformer: silent modulations and output, so that it starts as the identity."""
    params: dict[str, Any] = dict(c.TRANSFORMER_PARAMS)
    params["axes_dim"] = tuple(params["axes_dim"])
    model = FluxTransformer(FluxParams(**params))
    draw = draws.generator("transformer", -1)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            fan_out, fan_in = module.weight.shape
            nn.init.zeros_(module.bias)
            silent = name.endswith((".lin", "final_layer.linear", "adaLN_modulation.1"))
            spread = 0.0 if silent else (2 / (fan_in + fan_out)) ** 0.5
            module.weight.data.normal_(0, 1, generator=draw).mul_(spread)
    return model


def make_pool() -> None:
    """Stage "pool": draw the pictures, encode them, keep latents (half precision) and scenes. A minute."""
    model = new_autoencoder()
    model.load_state_dict(draws.load("encoder") or {})
    scenes, latents = [], []
    kinds = (random_scene, random_rich_scene, random_named_scene)
    shares = (1 - c.RICH_SHARE - c.NAME_SHARE, c.RICH_SHARE, c.NAME_SHARE)
    size = min(256, c.POOL)
    for start in range(0, c.POOL, size):
        draw = draws.rng("pool", start)
        chunk = [kind(draw) for kind in draw.choices(kinds, shares, k=size)]
        latents.append(encode(model, pixels([render(s, random_jitter(draw)) for s in chunk])).half())
        scenes += [list(vars(s).values()) for s in chunk]
    draws.save("pool", {"scenes": scenes, "latents": torch.cat(latents)})


class Pool:
    """The drawn pictures: scenes and packed latents (N, S, 64)."""

    def __init__(self) -> None:
        state = draws.load("pool")
        if state is None:
            raise FileNotFoundError("the stage pool has not run")
        self.scenes = [Scene(*values) for values in state["scenes"]]
        self.latents = pack_latents(state["latents"]).float()


def flow_loss(
    model: FluxTransformer, latents: Tensor, pooled: Tensor, states: Tensor, draw: torch.Generator
) -> Tensor:
    """Squared error of the velocity at random noise levels."""
    batch = len(latents)
    t = torch.sigmoid(0.3 + torch.randn(batch, generator=draw))
    noise = torch.randn(latents.shape, generator=draw)
    guidance = 1 + 4 * torch.rand(batch, generator=draw)
    mixed = latents + t[:, None, None] * (noise - latents)
    velocity = model(
        mixed,
        image_ids(batch, LATENT_SIDE, LATENT_SIDE),
        states,
        text_ids(batch, states.shape[1]),
        t,
        pooled,
        guidance,
    )
    return F.mse_loss(velocity, noise - latents)


def optimizers(model: FluxTransformer, text: nn.Module) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the blocks' matrices, AdamW for the rest, each with its full learning rate."""
    blocks = [p for n, p in model.named_parameters() if p.ndim == 2 and "blocks" in n]
    matrices = {id(p) for p in blocks}
    rest = [p for p in [*model.parameters(), *text.parameters()] if id(p) not in matrices]
    muon = torch.optim.Muon(blocks, lr=c.MUON_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(rest, lr=c.RATE, betas=(0.9, 0.98), weight_decay=0.01)
    return [(muon, c.MUON_RATE), (adam, c.RATE)]


class Trained(nn.Module):
    """What the stage trains: the transformer with the text side."""

    def __init__(self, model: FluxTransformer, text: Text) -> None:
        super().__init__()
        self.model, self.text = model, text


class Run:
    """Everything the stage changes from step to step."""

    def __init__(self, files: Path) -> None:
        self.model = new_transformer()
        self.text: Text
        self.tokens: Tokens
        self.text, self.tokens = new_text(files)
        self.text.load_state_dict(draws.load("text") or {})
        self.modules = Trained(self.model, self.text)
        self.average = copy.deepcopy(self.modules).requires_grad_(False)
        self.optimizers = optimizers(self.model, self.text)
        self.step = 0

    def state(self) -> dict[str, Any]:
        """All of it, for the disk."""
        return {
            "step": self.step,
            "modules": self.modules.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer, _ in self.optimizers],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The reverse of `state`."""
        self.step = int(state["step"])
        self.modules.load_state_dict(state["modules"])
        self.average.load_state_dict(state["average"])
        for (optimizer, _), saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def advance(self, pool: Pool) -> float:
        """One training step; returns the flow loss."""
        draw, noise = draws.rng("transformer", self.step), draws.generator("transformer", self.step)
        chosen = [draw.randrange(len(pool.scenes)) for _ in range(c.BATCH)]
        pooled, states, quiz = self.text([line_for(pool.scenes[i], draw) for i in chosen], self.tokens)
        loss = flow_loss(self.model, pool.latents[chosen], pooled, states, noise)
        for optimizer, rate in self.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = rate * rate_at(self.step, c.STEPS, c.DECAY_STEPS, c.WARMUP)
        (loss + 0.02 * quiz).backward()
        nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
        for optimizer, _ in self.optimizers:
            optimizer.step()
        self.step += 1
        keep = min(c.EMA, self.step / (self.step + 10))
        with torch.no_grad():
            for mine, theirs in zip(self.average.parameters(), self.modules.parameters(), strict=True):
                mine.lerp_(theirs, 1 - keep)
        return loss.item()


def train_transformer(files: Path) -> None:
    """Stage "transformer": the long one; resumes where it was."""
    run, pool = Run(files), Pool()
    state = draws.load("transformer")
    if state is not None:
        run.restore(state)
    progress = draws.Progress("transformer", run.step, c.STEPS)
    smooth = 0.0
    while run.step < c.STEPS:
        loss = run.advance(pool)
        smooth = loss if not smooth else smooth + 0.02 * (loss - smooth)
        if progress.due(run.step, f"loss {smooth:.4f}"):
            draws.save("transformer", run.state())
