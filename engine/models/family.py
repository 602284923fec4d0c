"""The seam between model families and everything that trains, caches or samples.

The trainer asks a :class:`Family` for its parts, its velocity and its modules, and never looks behind it. FLUX.1
is the only one; another family is another class here (and its model files beside), nothing else.

Shapes: B samples, h x w latents, T text tokens, C their width, P the pooled width.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from engine.config import ModelConfig
from engine.errors import ModelFileError
from engine.models.autoencoder import Autoencoder, load_autoencoder
from engine.models.detect import ModelInfo, expect
from engine.models.flux import FluxTransformer, image_ids, pack_latents, text_ids, unpack_latents
from engine.models.flux_file import load_flux
from engine.models.flux_text import FluxTextEncoder, check_text_parts, flux_tokenizers
from engine.models.flux_text import TextEmbeds as TextEmbeds
from engine.models.header import encoder_fingerprint
from engine.models.modulation import Modulation
from engine.models.t5_layers import ToldFn
from engine.models.text_encoders import load_clip, load_t5
from engine.models.tokenizers import ClipTokenizer, T5Tokenizer
from engine.text import safe_text


class TextEncoder(Protocol):
    """Captions to what the transformer is conditioned on."""

    fingerprint: str
    remark: str
    """Why the encoding so far was slower than it might have been; empty where nothing held it up."""
    sparing: bool
    """Whether to use as little of the device's memory as it can, if that takes longer; the same bits."""

    def encode(self, captions: Sequence[str]) -> TextEmbeds:
        """Embeddings of all captions together, on the CPU; each one's are those it has alone."""
        ...

    def encode_each(self, captions: Sequence[str], told: ToldFn | None = None) -> Iterator[TextEmbeds]:
        """Encode captions; yields each one's embeddings (B = 1, on the CPU) in order, independent of the others.

        All captions belong in one call: reading the weights may cost more than encoding. ``told`` hears (done, of)
        in portions of the work much smaller than a caption's; what it raises ends the encoding.
        """
        ...

    def close(self) -> None:
        """Free the weights; the encoder cannot be used afterwards."""
        ...


class Family(Protocol):
    """What a model family must offer."""

    name: str
    base_model_version: str
    """``ss_base_model_version`` of LoRA files."""
    latent_channels: int
    downscale: int
    patch: int

    def architecture(self, variant: str) -> str:
        """``modelspec.architecture`` of LoRA files, without ``/lora``."""
        ...

    def sampling_shift(self, variant: str) -> bool:
        """Whether sampling shifts its schedule with resolution."""
        ...

    def text_length(self, variant: str, config: ModelConfig) -> int:
        """Tokens the text is padded to."""
        ...

    def uses_guidance(self, transformer: nn.Module) -> bool:
        """Whether the transformer embeds a guidance value."""
        ...

    def check_transformer(self, info: ModelInfo) -> None:
        """Refuse variants of the family that cannot be trained."""
        ...

    def load_autoencoder(self, config: ModelConfig, device: torch.device | str, dtype: torch.dtype) -> Autoencoder:
        """Load the autoencoder, frozen."""
        ...

    def load_text_encoder(self, config: ModelConfig, device: torch.device | str, dtype: torch.dtype) -> TextEncoder:
        """Load the text encoders with their tokenizers, frozen."""
        ...

    def autoencoder_fingerprint(self, config: ModelConfig, dtype: torch.dtype) -> str:
        """The loaded autoencoder's fingerprint, without loading it."""
        ...

    def text_fingerprint(self, config: ModelConfig, dtype: torch.dtype) -> str:
        """The loaded text encoder's fingerprint, without loading it."""
        ...

    def velocity(
        self,
        transformer: nn.Module,
        latents: Tensor,
        sigmas: Tensor,
        text: TextEmbeds,
        guidance: float,
        masked: bool,
        modulation: Modulation | None = None,
    ) -> Tensor:
        """The velocity (B, channels, h, w), float32, at ``sigmas`` (B,); ``modulation`` if computed ahead."""
        ...

    def lora_modules(self, transformer: nn.Module) -> dict[str, str]:
        """Names of all linears an adapter may sit on, with their kinds (see ``config.LORA_KINDS``)."""
        ...


_KIND_OF = (
    (re.compile(r"double_blocks\.\d+\.(img|txt)_(attn)\.(?:qkv|proj)"), r"\1_\2"),
    (re.compile(r"double_blocks\.\d+\.(img|txt)_(mlp)\.(?:0|2)"), r"\1_\2"),
    (re.compile(r"double_blocks\.\d+\.(img|txt)_(mod)\.lin"), r"\1_\2"),
    (re.compile(r"single_blocks\.\d+\.linear[12]"), "single"),
    (re.compile(r"single_blocks\.\d+\.modulation\.lin"), "single_mod"),
)


class Flux1:
    """FLUX.1: dev with guidance and a shifted schedule, schnell with neither."""

    name = "flux1"
    base_model_version = "flux1"
    latent_channels, downscale, patch = 16, 8, 2

    def architecture(self, variant: str) -> str:
        """``flux-1-dev`` or ``flux-1-schnell``."""
        return "flux-1-schnell" if variant.startswith("schnell") else "flux-1-dev"

    def sampling_shift(self, variant: str) -> bool:
        """dev's schedule is shifted with the number of tokens, schnell's is not."""
        return not variant.startswith("schnell")

    def text_length(self, variant: str, config: ModelConfig) -> int:
        """The setting, else 512 for dev and 256 for schnell, as they were trained."""
        return config.t5_length or (256 if variant.startswith("schnell") else 512)

    def uses_guidance(self, transformer: nn.Module) -> bool:
        """True for dev."""
        return cast(FluxTransformer, transformer).guidance_in is not None

    def load_transformer(
        self,
        config: ModelConfig,
        device: torch.device | str,
        dtype: torch.dtype,
        progress: Callable[[int, int], None] | None = None,
    ) -> FluxTransformer:
        """Load the transformer, frozen.

        Raises:
            ModelFileError: not a complete text-to-image FLUX.1 transformer, or damaged.
        """
        self.check_transformer(expect(config.transformer, "transformer"))
        return load_flux(config.transformer, device, dtype, progress)

    def check_transformer(self, info: ModelInfo) -> None:
        """Refuse variants that are no text-to-image FLUX.1.

        Raises:
            ModelFileError: other axes or input channels than FLUX.1's.
        """
        wanted = self.latent_channels * self.patch**2
        if len(info.params["axes_dim"]) != 3:
            raise ModelFileError(
                "This variant cannot be trained",
                f"{safe_text(info.path, 400)} rotates {len(info.params['axes_dim'])} axes, FLUX.1 has three",
                "Give flux1-dev.safetensors or flux1-schnell.safetensors.",
            )
        if info.params.get("in_channels") != wanted:
            raise ModelFileError(
                "This variant cannot be trained",
                f"{safe_text(info.path, 400)} is FLUX.1 {info.variant} with {info.params.get('in_channels')} input "
                f"channels; text to image has {wanted}",
                "Give flux1-dev.safetensors or flux1-schnell.safetensors.",
            )

    def load_autoencoder(self, config: ModelConfig, device: torch.device | str, dtype: torch.dtype) -> Autoencoder:
        """Load the autoencoder, frozen.

        Raises:
            ModelFileError: not a complete FLUX.1 autoencoder with 16 latent channels, or damaged.
        """
        loaded = load_autoencoder(config.autoencoder, device, dtype)
        if loaded.sizes.z_channels != self.latent_channels or loaded.downscale != self.downscale:
            raise ModelFileError(
                "The autoencoder does not fit FLUX.1",
                f"{safe_text(config.autoencoder, 400)} has {loaded.sizes.z_channels} channels at 1/{loaded.downscale}"
                f" of the size; FLUX.1 works on {self.latent_channels} at 1/{self.downscale}",
                "Give FLUX.1's own ae.safetensors.",
            )
        return loaded

    def autoencoder_fingerprint(self, config: ModelConfig, dtype: torch.dtype) -> str:
        """The loaded autoencoder's fingerprint, without loading it."""
        return encoder_fingerprint(config.autoencoder, dtype)

    def load_text_encoder(
        self, config: ModelConfig, device: torch.device | str, dtype: torch.dtype
    ) -> FluxTextEncoder:
        """Load CLIP-L, T5 and their tokenizers, frozen.

        Raises:
            ModelFileError: a file is of another kind, incomplete or damaged, a tokenizer is not found, or a part
                does not fit another.
        """
        info = expect(config.transformer, "transformer")
        clip_tokenizer, t5_tokenizer = flux_tokenizers(config)
        clip, t5 = load_clip(config.clip_l, device, dtype), load_t5(config.t5, device, dtype)
        check_text_parts(config, info, clip, t5, clip_tokenizer, t5_tokenizer)
        return FluxTextEncoder(
            clip,
            t5,
            clip_tokenizer,
            t5_tokenizer,
            length=self.text_length(info.variant, config),
            masked=config.t5_mask,
            fingerprint=self._text_fingerprint(config, dtype, info, (clip_tokenizer, t5_tokenizer)),
        )

    def text_fingerprint(self, config: ModelConfig, dtype: torch.dtype) -> str:
        """The loaded text encoder's fingerprint: both files, both tokenizers, precision, length, mask."""
        info = expect(config.transformer, "transformer")
        return self._text_fingerprint(config, dtype, info, flux_tokenizers(config))

    def _text_fingerprint(
        self,
        config: ModelConfig,
        dtype: torch.dtype,
        info: ModelInfo,
        tokenizers: tuple[ClipTokenizer, T5Tokenizer],
    ) -> str:
        parts = (
            encoder_fingerprint(config.clip_l, dtype),
            encoder_fingerprint(config.t5, dtype),
            *(tokenizer.fingerprint for tokenizer in tokenizers),
            str(self.text_length(info.variant, config)),
            "masked" if config.t5_mask else "unmasked",
        )
        return hashlib.sha256("/".join(parts).encode()).hexdigest()

    def velocity(
        self,
        transformer: nn.Module,
        latents: Tensor,
        sigmas: Tensor,
        text: TextEmbeds,
        guidance: float,
        masked: bool,
        modulation: Modulation | None = None,
    ) -> Tensor:
        """Predict the velocity (noise minus data) of noisy latents.

        Args:
            transformer: a FLUX transformer, with or without an adapter.
            latents: (B, 16, h, w), h and w even.
            sigmas: (B,), float32, in [0, 1].
            text: embeddings of B captions.
            guidance: embedded guidance, ignored by schnell.
            masked: attend to real text tokens only.
            modulation: of these samples, computed ahead, for a transformer that can be given it.

        Returns:
            Tensor (B, 16, h, w), float32.
        """
        batch, _, height, width = latents.shape
        device = latents.device
        tokens = cast(FluxTransformer, transformer)(
            pack_latents(latents),
            image_ids(batch, height, width, device),
            text.states,
            text_ids(batch, text.states.shape[1], device),
            sigmas.float(),
            text.pooled,
            torch.full((batch,), float(guidance), dtype=torch.float32, device=device),
            text.mask if masked else None,
            **({} if modulation is None else {"modulation": modulation}),  # the plain transformer has none
        )
        return unpack_latents(tokens.float(), height, width)

    def lora_modules(self, transformer: nn.Module) -> dict[str, str]:
        """The linears of all blocks with their kinds: 304 at full size, in the file's order."""
        matches = ((name, p.fullmatch(name), kind) for name, _ in transformer.named_modules() for p, kind in _KIND_OF)
        return {name: match.expand(kind) for name, match, kind in matches if match}


FLUX1 = Flux1()


def family_of(info: ModelInfo) -> Family:
    """The family of a recognised model.

    Raises:
        ModelFileError: a family that cannot be trained.
    """
    if info.family == FLUX1.name:
        return FLUX1
    raise ModelFileError(
        "This family cannot be trained yet",
        f"{safe_text(info.path, 400)} is {info.family or 'of an unknown family'}; FLUX.1 is the one that is known",
        "Give flux1-dev.safetensors or flux1-schnell.safetensors.",
    )
