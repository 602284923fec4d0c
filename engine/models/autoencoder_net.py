"""The convolutional network of FLUX.1's autoencoder, with the tensor names of ``ae.safetensors``.

Owns the arithmetic only; units, files and devices are :mod:`engine.models.autoencoder`'s. Follows
black-forest-labs/flux (``src/flux/modules/autoencoder.py``) and is tested against it and against diffusers.
Importing diffusers for this would cost every start several seconds and pull in libraries that run native code.

Shapes: B pictures, C channels, H x W pixels (or latents, 1/8 of them along each side).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.models.autoencoder_layout import AutoencoderSizes

_EPS = 1e-6


class Residual(nn.Module):
    """Norm, SiLU, 3x3 convolution, twice, added to the input (through 1x1 where the width changes)."""

    def __init__(self, before: int, width: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, before, eps=_EPS)
        self.conv1 = nn.Conv2d(before, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, width, eps=_EPS)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(before, width, 1) if before != width else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, before, H, W) to (B, width, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class Attention(nn.Module):
    """Attention with one head over all positions, through 1x1 convolutions, added to the input."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=_EPS)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        normed = self.norm(x)
        # (B, C, H, W) -> (B, 1, H*W, C)
        q, k, v = (conv(normed).flatten(2).transpose(1, 2)[:, None].contiguous() for conv in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(h[:, 0].transpose(1, 2).reshape(x.shape))


class Middle(nn.Module):
    """The coarsest level: residual, attention, residual."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.block_1 = Residual(width, width, groups)
        self.attn_1 = Attention(width, groups)
        self.block_2 = Residual(width, width, groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the same shape."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    """Halve both sides with a strided 3x3 convolution, padded right and below only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H/2, W/2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double both sides by repetition, then a 3x3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, 2h, 2w)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The residual blocks of one resolution and the step to the next."""

    def __init__(self, before: int, width: int, blocks: int, groups: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(Residual(before if i == 0 else width, width, groups) for i in range(blocks))
        self.downsample: Downsample | None = None
        self.upsample: Upsample | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, before, H, W) to (B, width, H', W'), H' halved, doubled or the same."""
        for block in self.block:
            x = block(x)
        for step in (self.downsample, self.upsample):
            x = x if step is None else step(x)
        return x


class Encoder(nn.Module):
    """Pixels to moments: the latent's mean and log-variance."""

    def __init__(self, sizes: AutoencoderSizes) -> None:
        super().__init__()
        widths, groups = [sizes.ch * mult for mult in sizes.ch_mult], sizes.norm_groups
        self.conv_in = nn.Conv2d(sizes.in_channels, sizes.ch, 3, padding=1)
        self.down = nn.ModuleList(
            Level(before, width, sizes.num_res_blocks, groups)
            for before, width in zip([sizes.ch, *widths], widths, strict=False)
        )
        for level, width in zip(self.down[:-1], widths, strict=False):
            level.downsample = Downsample(width)
        self.mid = Middle(widths[-1], groups)
        self.norm_out = nn.GroupNorm(groups, widths[-1], eps=_EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * sizes.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map pixels (B, 3, H, W) to moments (B, 2*16, H/8, W/8)."""
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Latents to pixels; one residual block more per level than the encoder."""

    def __init__(self, sizes: AutoencoderSizes) -> None:
        super().__init__()
        widths, groups = [sizes.ch * mult for mult in sizes.ch_mult], sizes.norm_groups
        self.conv_in = nn.Conv2d(sizes.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], groups)
        self.up = nn.ModuleList(
            Level(before, width, sizes.num_res_blocks + 1, groups)
            for before, width in zip([*widths[1:], widths[-1]], widths, strict=True)
        )
        for level, width in zip(self.up[1:], widths[1:], strict=True):
            level.upsample = Upsample(width)
        self.norm_out = nn.GroupNorm(groups, widths[0], eps=_EPS)
        self.conv_out = nn.Conv2d(widths[0], sizes.out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Map latents (B, 16, h, w) to pixels (B, 3, 8h, 8w)."""
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class AutoencoderNet(nn.Module):
    """Encoder and decoder side by side, as the file holds them."""

    def __init__(self, sizes: AutoencoderSizes) -> None:
        super().__init__()
        self.encoder = Encoder(sizes)
        self.decoder = Decoder(sizes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode to the posterior's mean and decode it again, without noise."""
        return self.decoder(torch.chunk(self.encoder(pixels), 2, dim=1)[0])
