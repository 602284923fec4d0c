"""The FLUX.1 autoencoder: pixels to latents and back, in the units the transformer is trained in.

In: ``ae.safetensors`` in black-forest-labs' layout. Latents leave and enter shifted and scaled,
``(z - 0.1159) * 0.3611``, so no caller ever sees the raw ones.

Shapes: pixels (B, 3, H, W) in [-1, 1], latents (B, 16, H/8, W/8).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor

from engine.models.autoencoder_layout import AutoencoderSizes, autoencoder_sizes
from engine.models.autoencoder_net import AutoencoderNet
from engine.models.detect import expect_part
from engine.models.header import encoder_fingerprint
from engine.models.parts import Part
from engine.models.weights import load_weights


class Autoencoder:
    """A frozen autoencoder; encodes to a mean and a spread, decodes latents, both in the transformer's units."""

    def __init__(self, net: AutoencoderNet, sizes: AutoencoderSizes, fingerprint: str) -> None:
        self.net = net
        self.sizes = sizes
        self.fingerprint = fingerprint
        """Changes with the file and the precision: part of the key of every cached latent."""

    @property
    def downscale(self) -> int:
        """Pixels per latent along each side."""
        return 2 ** (len(self.sizes.ch_mult) - 1)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.net.parameters()).device

    def to(self, device: torch.device | str) -> Autoencoder:
        """Move the weights; returns itself."""
        self.net.to(device)
        return self

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode pixels to the posterior's mean and standard deviation, both shifted and scaled, float32.

        A training latent is ``mean + std * noise``.
        """
        weight = self.net.encoder.conv_in.weight
        with exact_convolutions():
            mean, logvar = self.net.encoder(pixels.to(weight.device, weight.dtype)).float().chunk(2, dim=1)
        std = (0.5 * logvar.clamp(-30.0, 20.0)).exp()
        return (mean - self.sizes.shift_factor) * self.sizes.scale_factor, std * self.sizes.scale_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode shifted and scaled latents to pixels (float32); values may lie slightly outside [-1, 1]."""
        weight = self.net.decoder.conv_in.weight
        z = latents.to(weight.device).float() / self.sizes.scale_factor + self.sizes.shift_factor
        with exact_convolutions():
            return self.net.decoder(z.to(weight.dtype)).float()


def exact_convolutions() -> AbstractContextManager[None]:
    """Convolutions as precise as their type: by default a GPU shortens float32 to TF32's 10 bits."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags


def load_autoencoder(path: Path, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Autoencoder:
    """Load the autoencoder at ``path``, frozen, in eval mode.

    Raises:
        ModelFileError: not a complete FLUX.1 autoencoder, or damaged.
    """
    _, part = expect_part(path, "autoencoder")
    return build_autoencoder(part, device, dtype, encoder_fingerprint(path, dtype))


def build_autoencoder(part: Part, device: torch.device | str, dtype: torch.dtype, fingerprint: str) -> Autoencoder:
    """Build and fill the autoencoder that ``part`` holds.

    Raises:
        ModelFileError: a tensor is missing, unexpected, of another shape, or unreadable.
    """
    sizes = autoencoder_sizes(part)
    with torch.device("meta"):
        net = AutoencoderNet(sizes)
    load_weights(net, part, device=device, dtype=dtype)
    return Autoencoder(net.eval(), sizes, fingerprint)
