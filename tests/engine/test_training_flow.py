"""The objective against formulas written out anew, and the draws against the distributions they should have."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from engine.config import ObjectiveConfig
from engine.training.flow import (
    draw_sigmas,
    flow_loss,
    noisy,
    resolution_shift,
    sample_losses,
    shift_sigmas,
    velocity_target,
)

COUNT = 40_000
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NORMAL = NormalDist()


def _draw(count: int = COUNT, tokens: int = 1024, **settings: object) -> Tensor:
    config = ObjectiveConfig.model_validate(settings)
    return draw_sigmas(config, count, tokens, torch.Generator().manual_seed(11))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _assert_quantiles(sigmas: Tensor, wanted: list[float]) -> None:
    found = torch.quantile(sigmas.double(), torch.tensor(QUANTILES, dtype=torch.float64)).tolist()
    assert found == pytest.approx(wanted, abs=0.012)


@pytest.mark.parametrize("sampling", ["sigma", "uniform", "sigmoid", "shift", "flux_shift"])
def test_draws_are_float32_in_range_and_the_generators_alone(sampling: str) -> None:
    before = torch.get_rng_state()
    sigmas = _draw(timestep_sampling=sampling)
    assert torch.equal(before, torch.get_rng_state())
    assert sigmas.dtype == torch.float32 and sigmas.shape == (COUNT,)
    assert sigmas.min() >= 0 and sigmas.max() <= 1
    assert torch.equal(sigmas, _draw(timestep_sampling=sampling))


def test_uniform() -> None:
    _assert_quantiles(_draw(timestep_sampling="uniform"), list(QUANTILES))


def test_sigmoid_with_scale() -> None:
    wanted = [_logistic(1.7 * NORMAL.inv_cdf(q)) for q in QUANTILES]
    _assert_quantiles(_draw(timestep_sampling="sigmoid", sigmoid_scale=1.7), wanted)


def test_shift() -> None:
    a = [_logistic(NORMAL.inv_cdf(q)) for q in QUANTILES]
    wanted = [3.1582 * x / (1 + 2.1582 * x) for x in a]
    _assert_quantiles(_draw(timestep_sampling="shift", discrete_flow_shift=3.1582), wanted)


@pytest.mark.parametrize("tokens", [256, 1024, 4096])
def test_flux_shift_follows_the_picture_size(tokens: int) -> None:
    mu = 0.5 + 0.65 * (tokens - 256) / 3840
    a = [_logistic(NORMAL.inv_cdf(q)) for q in QUANTILES]
    wanted = [math.exp(mu) / (math.exp(mu) + (1 / x - 1)) for x in a]
    _assert_quantiles(_draw(timestep_sampling="flux_shift", tokens=tokens), wanted)


def test_resolution_shift_at_published_points() -> None:
    assert resolution_shift(4096) == pytest.approx(3.1582, abs=1e-4)
    assert math.log(resolution_shift(256)) == pytest.approx(0.5)


def test_shift_keeps_the_ends_and_one_changes_nothing() -> None:
    sigmas = torch.tensor([0.0, 0.3, 1.0])
    assert shift_sigmas(sigmas, 3.0).tolist() == pytest.approx([0.0, 0.9 / 1.6, 1.0])
    assert torch.equal(shift_sigmas(sigmas, 1.0), sigmas)


def test_sigma_sampling_draws_from_the_shifted_descending_table() -> None:
    sigmas = _draw(timestep_sampling="sigma", discrete_flow_shift=3.0)
    table = {3 * (i / 1000) / (1 + 2 * i / 1000) for i in range(1, 1001)}
    found = sigmas.unique()
    assert len(found) == 1000
    nearest = torch.tensor(sorted(table))
    assert (found - nearest).abs().max() < 1e-6
    _assert_quantiles(sigmas, [3 * q / (1 + 2 * q) for q in QUANTILES])


def test_sigma_sampling_runs_down_the_table() -> None:
    config = ObjectiveConfig(timestep_sampling="sigma", discrete_flow_shift=1.0)
    u = torch.rand(50, generator=torch.Generator().manual_seed(4))
    wanted = [(1000 - math.floor(1000 * x)) / 1000 for x in u.tolist()]
    sigmas = draw_sigmas(config, 50, 1024, torch.Generator().manual_seed(4))
    assert sigmas.tolist() == pytest.approx(wanted, abs=1e-6)


def test_logit_normal_weighting() -> None:
    settings = {"weighting": "logit_normal", "logit_mean": 0.4, "logit_std": 0.8, "discrete_flow_shift": 1.0}
    wanted = [1 - _logistic(0.4 + 0.8 * NORMAL.inv_cdf(1 - q)) for q in QUANTILES]
    _assert_quantiles(_draw(timestep_sampling="sigma", **settings), wanted)


def test_mode_weighting() -> None:
    sigmas = _draw(timestep_sampling="sigma", weighting="mode", mode_scale=1.29, discrete_flow_shift=1.0)
    u = torch.arange(0.5 / COUNT, 1, 1 / COUNT, dtype=torch.float64)
    places = 1 - u - 1.29 * (torch.cos(math.pi * u / 2) ** 2 - 1 + u)
    exact = torch.quantile(1 - places, torch.tensor(QUANTILES, dtype=torch.float64))
    _assert_quantiles(sigmas, exact.tolist())


def test_mode_weighting_stays_in_the_table_whatever_its_scale() -> None:
    for scale in (-3.0, 5.0):
        sigmas = _draw(timestep_sampling="sigma", weighting="mode", mode_scale=scale)
        assert sigmas.min() > 0 and sigmas.max() <= 1


@pytest.mark.parametrize("sampling", ["sigma", "uniform", "sigmoid", "shift", "flux_shift"])
def test_a_range_holds_all_draws_and_keeps_the_shape(sampling: str) -> None:
    whole = _draw(timestep_sampling=sampling)
    part = _draw(timestep_sampling=sampling, min_sigma=0.2, max_sigma=0.6)
    assert part.min() >= 0.2 and part.max() <= 0.6
    torch.testing.assert_close(part, 0.2 + 0.4 * whole)


def test_noisy_and_target_are_float32_whatever_the_inputs() -> None:
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(2, 16, 4, 6, generator=generator) for _ in range(2))
    sigmas = torch.tensor([0.1234567, 0.9])
    mixed = noisy(latents.bfloat16(), noise, sigmas)
    assert mixed.dtype == torch.float32
    wanted = (1 - sigmas[1]) * latents[1].bfloat16().float() + sigmas[1] * noise[1]
    torch.testing.assert_close(mixed[1], wanted)
    assert torch.equal(velocity_target(latents, noise), noise - latents)
    # The velocity leads from the mixture to the data and to the noise.
    clean = noisy(latents, noise, sigmas) - sigmas.view(-1, 1, 1, 1) * velocity_target(latents, noise)
    torch.testing.assert_close(clean, latents, atol=1e-5, rtol=1e-5)


def _reference(d: float, sigma: float, config: ObjectiveConfig) -> float:
    c = config.huber_c
    if config.huber_schedule == "exponential":
        c = math.exp(math.log(config.huber_c) * (1000 * sigma) / 1000)
    match config.loss:
        case "l2":
            return d * d
        case "huber":
            return 2 * c * (math.sqrt(d * d + c * c) - c)
        case "smooth_l1":
            return 2 * (math.sqrt(d * d + c * c) - c)


@pytest.mark.parametrize("loss", ["l2", "huber", "smooth_l1"])
@pytest.mark.parametrize("schedule", ["constant", "exponential"])
def test_losses_element_by_element(loss: str, schedule: str) -> None:
    config = ObjectiveConfig.model_validate({"loss": loss, "huber_schedule": schedule, "huber_c": 0.05})
    generator = torch.Generator().manual_seed(1)
    pred, target = (torch.randn(3, 2, 2, 3, generator=generator) for _ in range(2))
    sigmas = torch.tensor([0.05, 0.5, 0.99])
    losses = sample_losses(pred, target, sigmas, config)
    for n in range(3):
        errors = (pred[n].double() - target[n].double()).flatten().tolist()
        wanted = sum(_reference(d, sigmas[n].item(), config) for d in errors) / len(errors)
        assert losses[n].item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("loss", ["huber", "smooth_l1"])
def test_gradients_are_finite_where_prediction_and_target_agree(loss: str) -> None:
    config = ObjectiveConfig.model_validate({"loss": loss})
    pred = torch.zeros(1, 1, 2, 2, requires_grad=True)
    sample_losses(pred, torch.zeros(1, 1, 2, 2), torch.tensor([0.5]), config).sum().backward()
    assert pred.grad is not None and torch.equal(pred.grad, torch.zeros_like(pred))


def test_weights_scale_samples_before_the_batch_mean() -> None:
    config = ObjectiveConfig()
    generator = torch.Generator().manual_seed(2)
    pred, target = (torch.randn(2, 4, 2, 2, generator=generator) for _ in range(2))
    sigmas = torch.tensor([0.2, 0.7])
    each = sample_losses(pred, target, sigmas, config)
    loss, own = flow_loss(pred.bfloat16(), target, sigmas, config, torch.tensor([1.0, 0.25]))
    torch.testing.assert_close(own, each, rtol=1e-2, atol=1e-2)
    assert loss.dtype == torch.float32 and loss.dim() == 0
    torch.testing.assert_close(loss, (each[0] + 0.25 * each[1]) / 2, rtol=1e-2, atol=1e-2)
    assert flow_loss(pred, target, sigmas, config, torch.ones(2))[0] == pytest.approx(each.mean().item())


@pytest.mark.parametrize("value", ["additive", "sigma_scaled"])
def test_inconsistent_predictions_are_refused_with_the_reason(value: str) -> None:
    with pytest.raises(ValueError, match="wrong velocity"):
        ObjectiveConfig.model_validate({"prediction": value})
