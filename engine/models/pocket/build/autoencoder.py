"""Makes the autoencoder: the encoder in closed form, the decoder by training against it.

The encoder is a principal component analysis of 8 x 8 px patches, 192 values to 16, written into the
convolutions of FLUX's encoder: the levels gather patches in steps, the last norm is held nearly constant by
two large constant channels in each group, and SiLU is undone by pairs of opposite sign
(silu(a) - silu(-a) = a). So the latents are known before anything is trained: the transformer and the decoder
can train at the same time, one core each.

Shapes: N pictures, pictures (N, 3, 64, 64) in [-1, 1], latents (N, 16, 8, 8).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from engine.models.pocket.build import constants as c
from engine.models.pocket.build import draws
from engine.models.pocket.scenes import random_jitter, random_rich_scene, random_scene, render

PATCH, LATENTS = 8, 16
HOLD = 64.0  # the constant that keeps the encoder's last norm steady, against signals of about 1


def pixels(pictures: list[Image.Image]) -> Tensor:
    """(N, 3, H, W) in [-1, 1]."""
    stack = np.stack([np.asarray(picture, dtype=np.uint8) for picture in pictures])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 127.5 - 1


def picture_of(values: Tensor) -> Image.Image:
    """The picture of one (3, H, W) in [-1, 1]."""
    levels = ((values.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def new_autoencoder() -> AutoencoderKL:
    """An untrained autoencoder of the pocket's size."""
    p = c.AE_PARAMS
    widths = tuple(p["ch"] * m for m in p["ch_mult"])  # type: ignore[attr-defined]
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths,
        layers_per_block=p["num_res_blocks"],
        latent_channels=LATENTS,
        norm_num_groups=p["norm_groups"],
        scaling_factor=c.SCALE_FACTOR,
        shift_factor=c.SHIFT_FACTOR,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def components() -> tuple[Tensor, Tensor, Tensor]:
    """Mean (192,), principal components (16, 192) and their spreads (16,) of patches, ordered (3, 8, 8)."""
    draw = draws.rng("encoder", 0)
    scenes = [random_rich_scene(draw) if i % 3 == 0 else random_scene(draw) for i in range(c.ENCODER_SCENES)]
    values = pixels([render(scene, random_jitter(draw)) for scene in scenes])
    patches = F.unfold(values, PATCH, stride=PATCH).transpose(1, 2).reshape(-1, 3 * PATCH * PATCH).double()
    mean = patches.mean(0)
    centred = patches - mean
    spread, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    order = spread.argsort(descending=True)[:LATENTS]
    basis = vectors[:, order].T
    # A sign for each, so that another linear-algebra library writes the same encoder.
    basis = basis * basis.gather(1, basis.abs().argmax(1, keepdim=True)).sign()
    return mean, basis, spread[order].sqrt()


def projection() -> tuple[Tensor, Tensor]:
    """Weight (16, 192) and bias (16,) from a patch to FLUX-normalised latents (before: the file's own)."""
    mean, basis, spread = components()
    wanted = spread**c.LATENT_EXPONENT
    wanted = wanted / wanted.square().mean().sqrt()
    weight = basis * (wanted / spread)[:, None]
    return weight, -weight @ mean


def skip_init(model: nn.Module, draw: torch.Generator) -> None:
    """Start a half of the autoencoder as its own skip path: residual branches silent, convolutions identities."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            if name.endswith("conv2"):
                nn.init.zeros_(module.weight)
            elif name.endswith(("conv1", "conv_out")):
                fan_in = module.weight[0].numel()
                module.weight.data.normal_(0, (1 / fan_in) ** 0.5, generator=draw)
            else:
                nn.init.dirac_(module.weight)
        if isinstance(module, nn.Linear):
            module.weight.data.normal_(0, module.in_features**-0.5, generator=draw)
            nn.init.zeros_(module.bias)
            if "to_out" in name:
                nn.init.zeros_(module.weight)


@torch.no_grad()
def write_encoder(model: AutoencoderKL) -> None:
    """Put the projection into the encoder's convolutions."""
    weight, bias = projection()
    encoder = model.encoder
    skip_init(encoder, draws.generator("encoder", 1))
    first, second, third = (encoder.down_blocks[i].downsamplers[0].conv for i in range(3))
    for conv in (first, second, third, encoder.conv_out):
        conv.weight.zero_()
    # Level 0 to 1: the 12 values of a 2 x 2 patch, as they are: channel = colour*4 + row*2 + column.
    for colour in range(3):
        for row in range(2):
            for column in range(2):
                first.weight[colour * 4 + row * 2 + column, colour, row, column] = 1
    # Level 1 to 2: of the 48 values of a 4 x 4 patch, the 32 directions that the four quarters of the projection use.
    halves = weight.reshape(LATENTS, 3, 2, 2, 2, 2, 2, 2)  # (16, 3, row: 4s, 2s, 1s, column: 4s, 2s, 1s)
    quarters = halves.permute(0, 2, 5, 1, 4, 7, 3, 6).reshape(LATENTS * 4, 12, 4)  # (.., 2x2 values, place)
    _, _, right = torch.linalg.svd(quarters.reshape(LATENTS * 4, 48), full_matrices=False)
    gather = right[:32]  # (32, 48)
    second.weight[:, :12, :2, :2] = gather.reshape(32, 12, 2, 2).float()
    # Level 2 to 3: the projection itself in terms of those directions, each value also with the other sign.
    rest = quarters.reshape(LATENTS * 4, 48) @ gather.T  # (16*4, 32)
    signal = rest.reshape(LATENTS, 2, 2, 32).permute(0, 3, 1, 2).float()  # (16, 32, row, column)
    for group in range(2):
        at = 32 * group
        third.weight[at : at + 8, :32, :2, :2] = signal[8 * group : 8 * group + 8]
        third.bias[at : at + 8] = bias[8 * group : 8 * group + 8].float()
        third.weight[at + 8 : at + 16] = -third.weight[at : at + 8]
        third.bias[at + 8 : at + 16] = -third.bias[at : at + 8]
        third.bias[at + 16], third.bias[at + 17] = HOLD, -HOLD
        for i in range(8):
            encoder.conv_out.weight[8 * group + i, at + i, 1, 1] = 1 / c.SCALE_FACTOR
            encoder.conv_out.weight[8 * group + i, at + 8 + i, 1, 1] = -1 / c.SCALE_FACTOR
    encoder.conv_norm_out.weight.fill_(HOLD / 4)  # the norm divides by HOLD * sqrt(2/32)
    encoder.conv_norm_out.bias.zero_()
    encoder.conv_out.bias[:LATENTS] = c.SHIFT_FACTOR
    encoder.conv_out.bias[LATENTS:] = c.LOGVAR


@torch.no_grad()
def encode(model: AutoencoderKL, values: Tensor) -> Tensor:
    """Mean latents (N, 16, 8, 8) in FLUX's normalisation."""
    moments = model.encoder(values)
    return c.SCALE_FACTOR * (moments[:, :LATENTS] - c.SHIFT_FACTOR)


def decode(model: AutoencoderKL, latents: Tensor) -> Tensor:
    """Pictures of latents in FLUX's normalisation."""
    return model.decoder(latents / c.SCALE_FACTOR + c.SHIFT_FACTOR)


def make_encoder() -> AutoencoderKL:
    """Stage "encoder": an autoencoder whose encoder is final and whose decoder is untrained. Seconds long."""
    with torch.random.fork_rng():
        torch.manual_seed(draws.key("autoencoder", 0))
        model = new_autoencoder()
    write_encoder(model)
    draws.save("encoder", model.state_dict())
    return model


def decoder_batch(model: AutoencoderKL, step: int) -> tuple[Tensor, Tensor]:
    """Pictures and their latents, a little noisy: what the transformer samples is never exact."""
    draw, noise = draws.rng("decoder", step), draws.generator("decoder", step)
    scenes = [random_rich_scene(draw) if draw.random() < 0.5 else random_scene(draw) for _ in range(c.DECODER_BATCH)]
    values = pixels([render(scene, random_jitter(draw)) for scene in scenes])
    latents = encode(model, values)
    level = torch.rand(len(values), 1, 1, 1, generator=noise) * 0.12
    return values, latents + level * torch.randn(latents.shape, generator=noise)


def picture_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """L1 and squared error of pixels, and L1 of their differences to the next pixel."""
    error = made - wanted
    edges = (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()) / 2
    return error.abs().mean() + error.square().mean() + 0.5 * edges


def rate_at(step: int, steps: int, decay: int, warmup: int) -> float:
    """Warm-up, stable, then linearly to zero: the factor for the learning rate at a step."""
    return min(1.0, (step + 1) / warmup, max(0.0, (steps - step) / decay))


def train_decoder() -> AutoencoderKL:
    """Stage "decoder": train the decoder against the fixed encoder; resumes where it was."""
    model = new_autoencoder()
    model.load_state_dict(draws.load("encoder") or make_encoder().state_dict())
    model.encoder.requires_grad_(False)
    skip_init(model.decoder, draws.generator("decoder", -1))
    optimizer = torch.optim.AdamW(model.decoder.parameters(), lr=c.DECODER_RATE, betas=(0.9, 0.98), weight_decay=1e-3)
    step, state = 0, draws.load("decoder")
    if state is not None:
        model.decoder.load_state_dict(state["decoder"])
        optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
    progress = draws.Progress("decoder", step, c.DECODER_STEPS)
    while step < c.DECODER_STEPS:
        rate = c.DECODER_RATE * rate_at(step, c.DECODER_STEPS, c.DECODER_DECAY, 100)
        for group in optimizer.param_groups:
            group["lr"] = rate
        values, latents = decoder_batch(model, step)
        made = decode(model, latents)
        loss = picture_loss(made, values)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.decoder.parameters(), 1.0)
        optimizer.step()
        step += 1
        peak = 10 * torch.log10(4 / (made.detach() - values).square().mean())
        if progress.due(step, f"loss {loss.item():.4f} psnr {peak.item():.1f} dB rate {rate:.1e}"):
            draws.save("decoder", decoder_state(model, optimizer, step))
    return model


def decoder_state(model: AutoencoderKL, optimizer: torch.optim.Optimizer, step: int) -> dict[str, Any]:
    """What a resumed decoder stage needs."""
    return {"decoder": model.decoder.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
