"""Teaches the transformer what its embedded guidance means, as FLUX.1-dev was taught.

A frozen copy draws twice, with the caption and without; the student learns to give away from the one towards
the other, as far as the guidance says, in one pass. A quarter of every batch has guidance 1, where nothing
changes: the value that LoRAs are trained at. The text encoders stay as they are.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.models.flux import FluxTransformer, image_ids, text_ids
from engine.models.pocket.build import constants as c
from engine.models.pocket.build import draws
from engine.models.pocket.build.autoencoder import rate_at
from engine.models.pocket.build.text import TextEncoders, line_for
from engine.models.pocket.build.transformer import LATENT_SIDE, Pool, Run, optimizers
from engine.models.pocket.build.vocabulary import Tokens

STAGE = "guidance"


def velocity(
    model: FluxTransformer, mixed: Tensor, t: Tensor, text: tuple[Tensor, Tensor], guidance: Tensor
) -> Tensor:
    """The model's velocity for packed latents (B, S, 64)."""
    batch, (pooled, states) = len(mixed), text
    ids = image_ids(batch, LATENT_SIDE, LATENT_SIDE)
    return model(mixed, ids, states, text_ids(batch, states.shape[1]), t, pooled, guidance)


class Distillation:
    """Teacher, student and everything the stage changes from step to step."""

    def __init__(self, files: Path) -> None:
        base = Run(files)
        state = draws.load("transformer")
        if state is None:
            raise FileNotFoundError("the stage transformer has not run")
        base.average.load_state_dict(state["average"])
        self.trained = base.average
        self.teacher, self.encoders = self.trained.model, self.trained.text.encoders
        self.student = copy.deepcopy(self.teacher).requires_grad_(True)
        self.average = copy.deepcopy(self.teacher)
        self.tokens: Tokens = base.tokens
        self.optimizers = optimizers(self.student, nn.Module())
        self.step = 0
        self.nothing = embed(self.encoders, self.tokens, [""])

    def state(self) -> dict[str, Any]:
        """All of it, for the disk; `average` in the form that the stage transformer has."""
        average = {**self.trained.state_dict(), **{f"model.{k}": v for k, v in self.average.state_dict().items()}}
        return {
            "step": self.step,
            "student": self.student.state_dict(),
            "average": average,
            "optimizers": [optimizer.state_dict() for optimizer, _ in self.optimizers],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The reverse of `state`."""
        self.step = int(state["step"])
        self.student.load_state_dict(state["student"])
        self.average.load_state_dict(
            {k.removeprefix("model."): v for k, v in state["average"].items() if k.startswith("model.")}
        )
        for (optimizer, _), saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def batch(self, pool: Pool) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], Tensor, Tensor]:
        """Noisy latents, their levels, text, guidance and the teacher's guided velocity."""
        draw, noise = draws.rng(STAGE, self.step), draws.generator(STAGE, self.step)
        chosen = [draw.randrange(len(pool.scenes)) for _ in range(c.BATCH)]
        text = embed(self.encoders, self.tokens, [line_for(pool.scenes[i], draw).text for i in chosen])
        latents = pool.latents[chosen]
        t = torch.sigmoid(0.3 + torch.randn(len(latents), generator=noise))
        mixed = latents + t[:, None, None] * (torch.randn(latents.shape, generator=noise) - latents)
        guidance = 1 + (c.MOST_GUIDANCE - 1) * torch.rand(len(latents), generator=noise)
        guidance[: len(guidance) // 4] = 1.0
        empty = (self.nothing[0].expand_as(text[0]), self.nothing[1].expand_as(text[1]))
        with torch.no_grad():
            one = torch.ones(len(latents))
            told = velocity(self.teacher, mixed, t, text, one)
            untold = velocity(self.teacher, mixed, t, empty, one)
        return mixed, t, text, guidance, untold + guidance[:, None, None] * (told - untold)

    def advance(self, pool: Pool) -> float:
        """One training step; returns the squared error against the teacher."""
        mixed, t, text, guidance, wanted = self.batch(pool)
        loss = F.mse_loss(velocity(self.student, mixed, t, text, guidance), wanted)
        for optimizer, rate in self.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = c.GUIDANCE_RATE * rate * rate_at(self.step, c.GUIDANCE_STEPS, c.GUIDANCE_STEPS, 50)
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        for optimizer, _ in self.optimizers:
            optimizer.step()
        self.step += 1
        with torch.no_grad():
            for mine, theirs in zip(self.average.parameters(), self.student.parameters(), strict=True):
                mine.lerp_(theirs, 0.02)
        return loss.item()


@torch.no_grad()
def embed(encoders: TextEncoders, tokens: Tokens, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Pooled and token states of captions."""
    ids = [tokens(text) for text in captions]
    pooled, states = encoders(torch.tensor([a for a, _ in ids]), torch.tensor([b for _, b in ids]))
    return pooled, states


def train_guidance(files: Path) -> None:
    """Stage "guidance": resumes where it was."""
    run, pool = Distillation(files), Pool()
    state = draws.load(STAGE)
    if state is not None:
        run.restore(state)
    progress = draws.Progress(STAGE, run.step, c.GUIDANCE_STEPS)
    smooth = 0.0
    while run.step < c.GUIDANCE_STEPS:
        loss = run.advance(pool)
        smooth = loss if not smooth else smooth + 0.02 * (loss - smooth)
        if progress.due(run.step, f"loss {smooth:.4f}"):
            draws.save(STAGE, run.state())
