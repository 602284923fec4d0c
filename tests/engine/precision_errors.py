"""How far velocity and LoRA gradient of a packed base are from the plain float32 one; `python` prints a table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from flux_steps import error
from model_files import write
from pocket import DEMO, FILES, pocket_config
from torch import Tensor
from torch.nn import functional as F

from engine.blocks.transformer import LeanFlux
from engine.config import LoraConfig
from engine.lora.adapter import LoraSet, describe_linears, make_adapters
from engine.lora.targets import select_targets
from engine.memory.calibration import Seen, calibrate, in_words, packed_linears
from engine.memory.conditioning import Conditioning, HeldLayers
from engine.memory.frozen import Resident, WeightSource
from engine.memory.load import LoadedBase, load_base
from engine.memory.products8 import Choice
from engine.models.family import FLUX1
from engine.models.flux import FluxParams, FluxTransformer, image_ids, pack_latents, text_ids
from engine.models.flux_file import layout
from engine.models.modulation import modulation_places

FULL_WIDTH = FluxParams(depth=0, depth_single_blocks=1, context_in_dim=64)
"""One single block as wide as FLUX.1's."""
FULL_WIDTH_BOTH = FluxParams(depth=1, depth_single_blocks=1, context_in_dim=64)

WAYS = (("auto", "wide"), ("int8", "wide"), ("int8", "int8"), ("fp8", "wide"), ("fp8", "fp8"), ("nf4", "wide"))
"""Precision of the base, and how its products are computed."""


@dataclass
class Errors:
    """Relative errors (norms) against float32, and what calibration saw.

    ``passed_back`` is the LoRA gradient for one and the same gradient of the velocity: the error of the products
    alone. ``gradient`` is that of the loss, into which the velocity's own error goes, the more the smaller what is
    left of the loss; ``cosine`` is its direction.
    """

    velocity: float
    passed_back: float
    gradient: float
    cosine: float
    seen: dict[str, Seen]
    words: str = ""


@dataclass
class Sample:
    """The arguments of a forward and the target of its velocity."""

    arguments: dict[str, Any]
    target: Tensor


def pocket_sample(count: int = 4) -> Sample:
    """Demo pictures at several noise levels, with their captions, as a training step has them."""
    with TemporaryDirectory() as folder:
        model = pocket_config(Path(folder)).model
    autoencoder = FLUX1.load_autoencoder(model, "cpu", torch.float32)
    encoder = FLUX1.load_text_encoder(model, "cpu", torch.float32)
    paths = sorted((DEMO / "train").glob("*.png"))[:count]
    texts = list(encoder.encode_each([path.with_suffix(".txt").read_text() for path in paths]))
    pixels = torch.stack([_pixels(path) for path in paths])
    with torch.no_grad():
        latents = pack_latents(autoencoder.encode(pixels)[0])
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(latents.shape, generator=generator)
    sigmas = torch.linspace(0.15, 0.95, count)
    mixed = sigmas[:, None, None] * noise + (1 - sigmas[:, None, None]) * latents
    states = torch.cat([text.states for text in texts])
    arguments = {
        "img": mixed,
        "img_ids": image_ids(count, 8, 8),
        "txt": states,
        "txt_ids": text_ids(count, states.shape[1]),
        "timesteps": sigmas,
        "y": torch.cat([text.pooled for text in texts]),
        "guidance": torch.full((count,), 1.0),
    }
    return Sample(arguments, noise - latents)


def random_sample(params: FluxParams, text: int = 8) -> Sample:
    """One sample of random states on a grid of 4 x 4 tokens."""
    generator = torch.Generator().manual_seed(6)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    arguments = {
        "img": draw(1, 16, params.in_channels),
        "img_ids": image_ids(1, 8, 8),
        "txt": draw(1, text, params.context_in_dim),
        "txt_ids": text_ids(1, text),
        "timesteps": torch.tensor([0.5]),
        "y": draw(1, params.vec_in_dim),
        "guidance": torch.tensor([3.5]),
    }
    return Sample(arguments, draw(1, 16, params.out_channels))


def random_model(path: Path, params: FluxParams) -> Path:
    """A file in bfloat16 whose linears keep the size of what passes, as a trained model's do, biases small."""
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, shape in layout(params).items():
        if name.endswith(".scale"):
            tensors[name] = torch.ones(shape, dtype=torch.bfloat16)
            continue
        spread = 0.02 if len(shape) == 1 else shape[1] ** -0.5
        tensors[name] = torch.empty(shape, dtype=torch.bfloat16).normal_(0, spread, generator=generator)
    return write(path, tensors, params.to_dict())


def adapters_for(params: FluxParams, rank: int = 4) -> LoraSet:
    """Default targets, with ups that are not zero, so that both matrices of each have a gradient."""
    with torch.device("meta"):
        plain = FluxTransformer(params)
    targets = select_targets(describe_linears(plain, FLUX1.lora_modules(plain)), LoraConfig(rank=rank, alpha=rank))
    lora = make_adapters(targets, LoraConfig(rank=rank, alpha=rank), 3, torch.device("cpu"))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for up in lora.up_parameters():
            up.normal_(0, 0.02, generator=generator)
    lora.refresh()
    return lora


def step(
    base: LoadedBase,
    lora: LoraSet,
    sample: Sample,
    grad: Tensor | None = None,
    source: WeightSource | None = None,
) -> tuple[Tensor, Tensor]:
    """Velocity and the flat LoRA gradient of one step, of the loss or from a given gradient of the velocity."""
    places = modulation_places(base.params.depth, base.params.depth_single_blocks)
    conditioning = Conditioning(base.io, places, HeldLayers(base.modulation))
    model = LeanFlux(base.params, base.io, source or Resident(base.blocks), lora.adapters, conditioning)
    lora.zero_grad()
    out = model(**sample.arguments)
    if grad is None:
        F.mse_loss(out.float(), sample.target).backward()
    else:
        out.backward(grad.to(out.dtype))
    return out.detach().float(), lora.gradients.clone()


def compare(
    path: Path,
    sample: Sample,
    ways: Sequence[tuple[str, str]] = WAYS,
    dtype: torch.dtype = torch.float32,
    told: Callable[[str, str, Errors], None] | None = None,
) -> dict[tuple[str, str], Errors]:
    """The errors of every way against the dense float32 base of the same file.

    8-bit products are calibrated on the step itself, as a run does on its first batch.
    """
    reference = load_base(path, device="cpu", dtype=torch.float32)
    lora = adapters_for(reference.params)
    velocity, gradient = step(reference, lora, sample)
    residual = 2 * (velocity - sample.target) / velocity.numel()
    del reference
    found = {}
    for precision, kind in ways:
        base = load_base(path, device="cpu", dtype=dtype, precision=precision, choice=Choice(kind))  # type: ignore[arg-type]
        linears = packed_linears(base.blocks)
        seen = calibrate(linears, lambda base=base: step(base, lora, sample)) if linears else {}  # type: ignore[misc]
        out, grad = step(base, lora, sample)
        _, back = step(base, lora, sample, residual)
        cosine = float(F.cosine_similarity(grad.double(), gradient.double(), dim=0))
        words = in_words(linears, seen) if linears else ""
        found[precision, kind] = Errors(
            error(out, velocity), error(back, gradient), error(grad, gradient), cosine, seen, words
        )
        if told is not None:
            told(precision, kind, found[precision, kind])
    return found


def _pixels(path: Path) -> Tensor:
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB").resize((64, 64))
    values = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8)
    return values.reshape(64, 64, 3).permute(2, 0, 1).float() / 127.5 - 1


def print_table() -> None:
    """Every way on the pocket model and on random blocks of full width."""

    def told(precision: str, kind: str, errors: Errors) -> None:
        shown = (errors.velocity, errors.passed_back, errors.gradient)
        columns = " | ".join(f"{one:.2%}" for one in shown)
        print(f"| {precision} | {kind} | {columns} | {errors.cosine:.5f} | {errors.words} |", flush=True)

    for dtype in (torch.float32, torch.bfloat16):
        print(f"pocket model, {dtype}")
        compare(FILES / "flux-pocket.safetensors", pocket_sample(), dtype=dtype, told=told)
    with TemporaryDirectory() as folder:
        for params in (FULL_WIDTH, FULL_WIDTH_BOTH):
            path = random_model(Path(folder) / "m.safetensors", params)
            print(f"random, {params.depth} double and {params.depth_single_blocks} single block of full width")
            compare(path, random_sample(params), told=told)


if __name__ == "__main__":
    sys.exit(print_table())
