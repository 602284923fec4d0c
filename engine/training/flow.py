"""The objective: at which noise levels the model is asked, what it should answer, and how its error is measured.

Rectified flow as FLUX.1 was trained: ``x = (1 - sigma) * data + sigma * noise`` and the model predicts the velocity
``noise - data``. Sigma stays float32 all the way. Every draw comes from the generator passed in, on the CPU.

Sources: kohya sd-scripts ``library/flux_train_utils.py`` and ``train_util.py`` (samplings, losses), diffusers
``training_utils.py`` (the weightings of ``sigma`` sampling), black-forest-labs/flux ``sampling.py`` (the shift by
picture size).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engine.config import ObjectiveConfig

TABLE_SIZE = 1000
"""Noise levels in the table that ``sigma`` sampling draws from."""


def draw_sigmas(config: ObjectiveConfig, count: int, image_tokens: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` noise levels for pictures of ``image_tokens`` packed tokens.

    ==========  =====================================================================================
    sampling    sigma, with U uniform in [0, 1), N normal, s the logistic function
    ==========  =====================================================================================
    uniform     U
    sigmoid     s(k N)
    shift       s(k N) shifted by ``discrete_flow_shift``
    flux_shift  s(k N) shifted by exp(mu), mu rising linearly from 0.5 at 256 tokens to 1.15 at 4096
    sigma       an entry of the descending table i / 1000, shifted; which one is drawn by ``weighting``
    ==========  =====================================================================================

    With ``min_sigma`` or ``max_sigma`` set the draws are mapped linearly from [0, 1] into that range, so that the
    distribution keeps its shape and no draw is thrown away.

    Returns:
        Tensor (count,), float32, on the CPU.
    """
    if config.timestep_sampling == "sigma":
        sigmas = _from_table(config, count, generator)
    elif config.timestep_sampling == "uniform":
        sigmas = torch.rand(count, generator=generator)
    else:
        sigmas = torch.sigmoid(config.sigmoid_scale * torch.randn(count, generator=generator))
        sigmas = shift_sigmas(sigmas, _shift_factor(config, image_tokens))
    return config.min_sigma + (config.max_sigma - config.min_sigma) * sigmas


def shift_sigmas(sigmas: Tensor, factor: float) -> Tensor:
    """Move noise levels upwards: ``S a / (1 + (S - 1) a)``; factor 1 changes nothing."""
    return factor * sigmas / (1 + (factor - 1) * sigmas)


def resolution_shift(image_tokens: int) -> float:
    """FLUX's ``exp(mu)``: 3.158 at 1024 x 1024 pixels (4096 tokens)."""
    return math.exp(0.5 + (1.15 - 0.5) * (image_tokens - 256) / (4096 - 256))


def _shift_factor(config: ObjectiveConfig, image_tokens: int) -> float:
    match config.timestep_sampling:
        case "shift":
            return config.discrete_flow_shift
        case "flux_shift":
            return resolution_shift(image_tokens)
        case _:
            return 1.0


def _from_table(config: ObjectiveConfig, count: int, generator: torch.Generator) -> Tensor:
    places = (TABLE_SIZE * _table_places(config, count, generator)).long().clamp(0, TABLE_SIZE - 1)
    table = (TABLE_SIZE - torch.arange(TABLE_SIZE, dtype=torch.float32)) / TABLE_SIZE
    return shift_sigmas(table, config.discrete_flow_shift)[places]


def _table_places(config: ObjectiveConfig, count: int, generator: torch.Generator) -> Tensor:
    """Places in the descending table as parts of its length: 0 is pure noise."""
    if config.weighting == "logit_normal":
        normal = torch.randn(count, generator=generator)
        return torch.sigmoid(config.logit_mean + config.logit_std * normal)
    u = torch.rand(count, generator=generator)
    if config.weighting == "mode":
        return 1 - u - config.mode_scale * (torch.cos(math.pi * u / 2) ** 2 - 1 + u)
    return u


def noisy(latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """``(1 - sigma) * latents + sigma * noise`` for latents (B, C, h, w) and sigmas (B,); float32."""
    level = sigmas.float().view(-1, *(1,) * (latents.dim() - 1))
    return (1 - level) * latents.float() + level * noise.float()


def velocity_target(latents: Tensor, noise: Tensor) -> Tensor:
    """What the model should predict: ``noise - latents``; float32."""
    return noise.float() - latents.float()


LEAST_AREA = 1 / 16
"""A mask that leaves less than this of a picture counts as if it left so much: a few values never pull sixteen times
as hard as others."""


def mask_weights(mask: Tensor, outside: float) -> Tensor:
    """Weights of a loss's elements by a mask (h, w), uint8: ``w = outside + (1 - outside) m / 255``, over its mean.

    The mean of the result is 1 (unless the mask leaves less than ``LEAST_AREA``), so a masked picture pulls as hard
    as one without a mask, and losses compare. A white mask gives exactly 1 everywhere.

    Returns:
        Tensor (1, h, w), float32.
    """
    weights = outside + (1 - outside) * (mask.float() / 255)
    # Of whites alone it is exactly 1, which 1 - outside + outside need not be.
    weights = torch.where(mask == 255, torch.ones_like(weights), weights)
    return (weights / weights.mean().clamp(min=LEAST_AREA)).unsqueeze(0)


def sample_losses(
    pred: Tensor, target: Tensor, sigmas: Tensor, config: ObjectiveConfig, mask: Tensor | None = None
) -> Tensor:
    """Mean error of each sample.

    With d = pred - target, elementwise: l2 ``d^2``; huber ``2c (sqrt(d^2 + c^2) - c)``; smooth_l1
    ``2 (sqrt(d^2 + c^2) - c)``. c is ``huber_c``, or with the exponential schedule ``huber_c ** sigma``: from 1 at
    clean pictures down to ``huber_c`` at pure noise.

    Args:
        pred, target: velocities (B, C, h, w); compared in float32.
        sigmas: noise levels (B,).
        mask: weights (B, 1, h, w) of the errors, from :func:`mask_weights`.

    Returns:
        Tensor (B,), float32.
    """
    errors = _errors(pred, target, sigmas, config)
    if mask is not None:
        errors = errors * mask
    return errors.flatten(1).mean(1)


def _errors(pred: Tensor, target: Tensor, sigmas: Tensor, config: ObjectiveConfig) -> Tensor:
    """The error of each element (B, C, h, w), float32."""
    squared = (pred.float() - target.float()) ** 2
    if config.loss == "l2":
        return squared
    c = torch.full_like(sigmas, config.huber_c, dtype=torch.float32)
    if config.huber_schedule == "exponential":
        c = c ** sigmas.float()
    c = c.to(squared.device).view(-1, *(1,) * (squared.dim() - 1))
    # The root less c, without its cancellation where d is small against c.
    root = squared / (torch.sqrt(squared + c * c) + c)
    return 2 * (c if config.loss == "huber" else 1.0) * root


def flow_loss(
    pred: Tensor,
    target: Tensor,
    sigmas: Tensor,
    config: ObjectiveConfig,
    weights: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """Mean over the batch of each sample's error times its weight (B,): a float32 scalar.

    The weights do not normalise: a regularisation picture of weight 0.1 pulls a tenth as hard, whatever it is
    batched with.
    """
    return (sample_losses(pred, target, sigmas, config, mask) * weights.to(pred.device, torch.float32)).mean()
