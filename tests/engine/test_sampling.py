"""Sampling: steps as in diffusers, guidance as configured, and no trace left in the training it interrupts."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from engine.config import LoraConfig
from engine.lora.adapter import describe_linears, inject
from engine.lora.targets import select_targets
from engine.models.family import FLUX1
from engine.models.flux import FluxParams, FluxTransformer, image_ids, pack_latents, text_ids, unpack_latents
from engine.models.modulation import Modulation
from engine.training.sampling import PictureRequest, draw_latents, eval_mode, flow_schedule, initial_noise

TINY = FluxParams(
    vec_in_dim=12, context_in_dim=20, hidden_size=32, num_heads=2, depth=1, depth_single_blocks=1, axes_dim=(4, 6, 6)
)
REQUEST = PictureRequest("a red circle", seed=5, width=96, height=64, steps=4, guidance=3.0)


@dataclass(frozen=True)
class Embeds:
    """Embeddings as a text encoder gives them."""

    pooled: Tensor
    states: Tensor
    mask: Tensor


class TinyFamily:
    """The part of a family that sampling uses, around our transformer; notes every call."""

    latent_channels = 16
    downscale = 8
    patch = 2

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def sampling_shift(self, variant: str) -> bool:
        return variant != "schnell"

    def velocity(
        self,
        transformer: nn.Module,
        latents: Tensor,
        sigmas: Tensor,
        text: Embeds,
        guidance: float,
        masked: bool,
        modulation: Modulation | None = None,
    ) -> Tensor:
        self.calls.append({"sigma": sigmas.clone(), "dtype": latents.dtype, "text": text, "masked": masked})
        batch, _, height, width = latents.shape
        out = transformer(
            pack_latents(latents),
            image_ids(batch, height, width),
            text.states,
            text_ids(batch, text.states.shape[1]),
            sigmas,
            text.pooled,
            torch.full((batch,), guidance),
        )
        return unpack_latents(out, height, width)


class Constant(TinyFamily):
    """A velocity that is the mean of the text states: enough to check the arithmetic of guidance."""

    def velocity(
        self,
        transformer: nn.Module,
        latents: Tensor,
        sigmas: Tensor,
        text: Embeds,
        guidance: float,
        masked: bool,
        modulation: Modulation | None = None,
    ) -> Tensor:
        self.calls.append({"text": text, "training": transformer.training})
        return torch.full_like(latents, float(text.states.mean()))


def embeds(seed: int) -> Embeds:
    generator = torch.Generator().manual_seed(seed)
    return Embeds(
        torch.randn(1, 12, generator=generator),
        torch.randn(1, 7, 20, generator=generator),
        torch.ones(1, 7, dtype=torch.bool),
    )


@pytest.fixture(scope="module")
def transformer() -> FluxTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FluxTransformer(TINY)


def draw(family: Any, transformer: nn.Module, request: PictureRequest = REQUEST, **given: Any) -> Tensor:
    latents = draw_latents(
        family, transformer, embeds(1), given.pop("negative", None), request, "dev", "cpu", **given
    )
    assert latents is not None
    return latents


def test_steps_equal_diffusers(transformer: FluxTransformer) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096
    )
    request = replace(REQUEST, steps=6)
    x = torch.randn(1, 16, 8, 12, generator=torch.Generator().manual_seed(5))
    mu = 0.5 + (1.15 - 0.5) / (4096 - 256) * (24 - 256)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / request.steps, request.steps), mu=mu)
    text, family = embeds(1), TinyFamily()
    with torch.no_grad():
        for time in scheduler.timesteps:
            v = family.velocity(transformer, x, time[None] / 1000, text, 3.0, False)
            x = scheduler.step(v, time, x, return_dict=False)[0]
    ours = draw(TinyFamily(), transformer, request)
    assert torch.allclose(ours, x, rtol=1e-5, atol=1e-6)
    assert scheduler.sigmas.tolist() == pytest.approx(flow_schedule(6, 24, shifted=True), abs=1e-6)


def test_levels_are_float32_and_follow_the_variant(transformer: FluxTransformer) -> None:
    for variant, shifted in (("dev", True), ("schnell", False)):
        family = TinyFamily()
        draw_latents(family, transformer, embeds(1), None, REQUEST, variant, "cpu")  # type: ignore[arg-type]
        assert [call["sigma"].item() for call in family.calls] == flow_schedule(4, 24, shifted)[:-1]
        assert all(call["sigma"].dtype == call["dtype"] == torch.float32 for call in family.calls)


def test_guidance_by_difference() -> None:
    text, negative = embeds(1), embeds(2)
    positive_v, negative_v = float(text.states.mean()), float(negative.states.mean())
    noise = initial_noise(REQUEST)
    for cfg in (0.0, 1.0, 3.5):
        family = Constant()
        latents = draw(family, nn.Identity(), replace(REQUEST, cfg=cfg), negative=negative)
        # A constant velocity goes from sigma 1 to 0 whatever the steps.
        expected = noise - (negative_v + (positive_v - negative_v) * cfg)
        assert torch.allclose(latents, expected, atol=1e-5)
        assert len(family.calls) == (4 if cfg == 1.0 else 8)


def test_guidance_by_difference_needs_a_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        draw(Constant(), nn.Identity(), replace(REQUEST, cfg=2.0))


def test_noise_is_the_seeds_alone() -> None:
    noise = initial_noise(REQUEST)
    assert noise.shape == (1, 16, 8, 12)
    assert noise.dtype == torch.float32
    assert torch.equal(noise, torch.randn(1, 16, 8, 12, generator=torch.Generator().manual_seed(5)))
    assert torch.equal(noise, initial_noise(replace(REQUEST, prompt="other", steps=9)))
    assert not torch.equal(noise, initial_noise(replace(REQUEST, seed=6)))


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [((1024, 768), (1024, 768)), ((1000, 511), (992, 496)), ((16, 64), (64, 64)), ((79, 80), (64, 80))],
)
def test_sizes_are_floored(asked: tuple[int, int], drawn: tuple[int, int]) -> None:
    request = PictureRequest("x", width=asked[0], height=asked[1])
    assert request.size == drawn
    assert initial_noise(request).shape == (1, 16, drawn[1] // 8, drawn[0] // 8)
    assert (request.parameters()["width"], request.parameters()["height"]) == drawn


def _random_states() -> tuple[Any, ...]:
    numpy_state = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), numpy_state[1].tolist(), numpy_state[2]  # type: ignore[index]


def test_no_random_state_is_touched(transformer: FluxTransformer) -> None:
    dropping = nn.Sequential(transformer, nn.Dropout(0.5)).train()
    before = _random_states()
    first = draw(DroppingFamily(), dropping)
    assert _random_states() == before
    torch.rand(3), random.random()
    assert torch.equal(first, draw(DroppingFamily(), dropping))
    torch.manual_seed(11)
    undisturbed = torch.rand(4)
    torch.manual_seed(11)
    draw(DroppingFamily(), dropping)
    assert torch.equal(torch.rand(4), undisturbed)


class DroppingFamily(TinyFamily):
    """A family whose model drops values while it is in training mode."""

    def velocity(
        self,
        transformer: nn.Module,
        latents: Tensor,
        sigmas: Tensor,
        text: Embeds,
        guidance: float,
        masked: bool,
        modulation: Modulation | None = None,
    ) -> Tensor:
        inner, dropout = transformer  # type: ignore[misc]
        return dropout(super().velocity(inner, latents, sigmas, text, guidance, masked, modulation))


def test_modes_and_gradients_are_left_as_found() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Linear(2, 2)))
    model.train()
    model[1].eval()
    model[1][0].training = True
    modes = [part.training for part in model.modules()]
    family = Constant()
    draw(family, model)
    assert not any(call["training"] for call in family.calls)
    assert [part.training for part in model.modules()] == modes
    assert torch.is_grad_enabled()
    with pytest.raises(RuntimeError), eval_mode(model):
        raise RuntimeError
    assert [part.training for part in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_goes_on_after_a_sample(transformer: FluxTransformer) -> None:
    draw(TinyFamily(), transformer)
    x = torch.randn(1, 16, 8, 12)
    TinyFamily().velocity(transformer, x, torch.tensor([0.5]), embeds(3), 1.0, False).mean().backward()
    assert transformer.img_in.weight.grad is not None
    transformer.zero_grad(set_to_none=True)


def test_an_adapter_in_training_is_left_as_found() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = FluxTransformer(TINY)
    config = LoraConfig(rank=2, dropout=0.5, rank_dropout=0.5, module_dropout=0.5)
    lora = inject(model, select_targets(describe_linears(model, FLUX1.lora_modules(model)), config), config, seed=1)
    plain = draw(FLUX1, model)
    with torch.no_grad():
        for matrix in lora.up_parameters():
            matrix.fill_(0.05)
    model.train()
    state, before = lora.state(), _random_states()
    adapted = draw(FLUX1, model)
    assert not torch.equal(adapted, plain)
    assert torch.equal(draw(FLUX1, model), adapted), "dropout acted while sampling"
    assert _random_states() == before
    assert all(module.training for module in lora.modules.values())
    assert all(torch.equal(tensor, state[name]) for name, tensor in lora.state().items())
    with lora.disabled():
        assert torch.equal(draw(FLUX1, model), plain)


def test_a_stop_between_steps_and_progress() -> None:
    steps: list[tuple[int, int]] = []
    family = Constant()
    stopped = draw_latents(
        family,
        nn.Identity(),
        embeds(1),
        None,
        REQUEST,
        "dev",
        "cpu",
        lambda: len(steps) == 2,
        lambda *s: steps.append(s),
    )  # type: ignore[call-overload]
    assert stopped is None
    assert steps == [(1, 4), (2, 4)]
    steps.clear()
    draw(family, nn.Identity(), progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (4, 4)


def test_the_mask_setting_reaches_the_family(transformer: FluxTransformer) -> None:
    family = TinyFamily()
    draw(family, transformer, masked=True)
    assert all(call["masked"] for call in family.calls)
