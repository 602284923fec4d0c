"""Measures the pocket model: draws pictures for prompts and has the checker read them.

``python -m engine.models.pocket.evaluate`` loads the shipped files through the same loaders as any checkpoint,
draws 64 prompts, half of them combinations that the model never saw, and reports both halves apart: a JSON file
and a contact sheet. The tests use the functions, the demo's too.

Shapes: N pictures, latents (N, 16, 8, 8).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from engine.config import ModelConfig
from engine.models.autoencoder import Autoencoder
from engine.models.family import FLUX1, TextEmbeds, TextEncoder
from engine.models.pocket.check import read, shows_concept
from engine.models.pocket.concept import TRIGGER, concept_caption
from engine.models.pocket.scenes import (
    BACKGROUNDS,
    POSITIONS,
    SIZE,
    Scene,
    all_combinations,
    caption,
    held_out,
    named_looks,
    odd_word,
)

FILES = Path(__file__).parent / "files"
T5_LENGTH = 20  # tokens; what the files were trained with, as FLUX.1-dev with 512
LATENT_SIDE = SIZE // 8
PROPERTIES = ("background", "colour", "position", "shape")
BATCH = 16  # pictures drawn together


def model_config(files: Path = FILES) -> ModelConfig:
    """The settings that name the pocket model's files."""
    return ModelConfig(
        transformer=files / "flux-pocket.safetensors",
        autoencoder=files / "ae-pocket.safetensors",
        clip_l=files / "clip-pocket.safetensors",
        t5=files / "t5-pocket.safetensors",
        clip_tokenizer=files / "tokenizer",
        t5_tokenizer=files / "tokenizer_2",
        download_tokenizers=False,
        t5_length=T5_LENGTH,
    )


@dataclass(frozen=True)
class Pocket:
    """The loaded parts, frozen, on the CPU in float32."""

    transformer: nn.Module
    autoencoder: Autoencoder
    text: TextEncoder


def load_pocket(files: Path = FILES) -> Pocket:
    """Load the pocket model as a run loads any FLUX.1 checkpoint."""
    config, wide = model_config(files), torch.float32
    return Pocket(
        FLUX1.load_transformer(config, "cpu", wide),
        FLUX1.load_autoencoder(config, "cpu", wide),
        FLUX1.load_text_encoder(config, "cpu", wide),
    )


def sigmas(steps: int) -> list[float]:
    """FLUX's shifted schedule for a 64 px picture: steps + 1 noise levels from 1 to 0."""
    tokens = (LATENT_SIDE // 2) ** 2
    shift = math.exp(0.5 + 0.65 * (tokens - 256) / 3840)
    return [shift / (shift + steps / left - 1) if left else 0.0 for left in range(steps, -1, -1)]


@torch.no_grad()
def draw(
    pocket: Pocket, prompts: Sequence[str], seed: int = 0, steps: int = 20, guidance: float = 2.5
) -> list[Image.Image]:
    """A picture for each prompt; its noise depends on the seed and its place in the list."""
    noise = torch.randn(len(prompts), 16, LATENT_SIDE, LATENT_SIDE, generator=torch.Generator().manual_seed(seed))
    levels = sigmas(steps)
    out: list[Image.Image] = []
    for start in range(0, len(prompts), BATCH):
        chunk = list(prompts[start : start + BATCH])
        text: TextEmbeds = pocket.text.encode(chunk)
        latents = noise[start : start + BATCH]
        for now, after in itertools.pairwise(levels):
            level = torch.full((len(chunk),), now)
            latents = latents + (after - now) * FLUX1.velocity(
                pocket.transformer, latents, level, text, guidance, masked=False
            )
        out += [as_picture(values) for values in pocket.autoencoder.decode(latents)]
    return out


def as_picture(values: Tensor) -> Image.Image:
    """The picture of one (3, H, W) in [-1, 1]."""
    levels = ((values.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def prompt_scenes(count: int = 64, seed: int = 0) -> tuple[list[Scene], list[Scene]]:
    """Plain scenes to ask for: half of combinations that the model saw, half that it never saw."""
    rng = random.Random(f"prompts {seed}")
    seen = [c for c in all_combinations() if not held_out(c)]
    unseen = [c for c in all_combinations() if held_out(c)]
    half = count // 2
    return [Scene(*c) for c in rng.sample(seen, half)], [Scene(*c) for c in rng.sample(unseen, half)]


def score(pictures: Sequence[Image.Image], scenes: Sequence[Scene]) -> dict[str, float]:
    """Shares of pictures (0 to 1) with each property right, with the first three together, and with all four."""
    rights = []
    for picture, scene in zip(pictures, scenes, strict=True):
        reading = read(picture)
        rights.append([getattr(reading, name) == getattr(scene, name) for name in PROPERTIES])
    count = len(rights)
    shares = {name: sum(right[i] for right in rights) / count for i, name in enumerate(PROPERTIES)}
    shares["colour, background, position"] = sum(all(right[:3]) for right in rights) / count
    shares["all four"] = sum(all(right) for right in rights) / count
    return shares


def contact_sheet(pictures: Sequence[Image.Image], columns: int = 16, scale: int = 2) -> Image.Image:
    """All pictures on one, row by row."""
    side, gap = SIZE * scale, 4
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (side + gap), rows * (side + gap)), (60, 60, 60))
    for i, picture in enumerate(pictures):
        large = picture.resize((side, side), Image.Resampling.BICUBIC)
        sheet.paste(large, (i % columns * (side + gap), i // columns * (side + gap)))
    return sheet


def evaluate(
    pocket: Pocket, count: int = 64, seed: int = 0, guidance: float = 2.5, steps: int = 20
) -> dict[str, object]:
    """Draw and read `count` prompts; a report with the seen and the unseen half apart, and the pictures."""
    seen, unseen = prompt_scenes(count, seed)
    pictures = draw(pocket, [caption(scene) for scene in seen + unseen], seed, steps, guidance)
    half = len(seen)
    return {
        "prompts": count,
        "seed": seed,
        "guidance": guidance,
        "steps": steps,
        "seen": score(pictures[:half], seen),
        "unseen": score(pictures[half:], unseen),
        "both": score(pictures, seen + unseen),
        "pictures": pictures,
    }


def wrong_words(count: int = 64) -> list[str]:
    """Words that are neither the trigger nor known to the base."""
    rng = random.Random("wrong words")
    words = ["blicket", "wug", "dax", "florp", "toma", "gazzer", "tulip", "quib"]
    while len(words) < count:
        word = odd_word(rng)
        if word not in words and word not in named_looks() and word != TRIGGER:
            words.append(word)
    return words[:count]


def judge_concept(pocket: Pocket, guidance: float, steps: int = 20, seed: int = 1) -> dict[str, float]:
    """What a LoRA made of the model: `pocket.transformer` carries it.

    Returns:
        Shares of pictures, 0 to 1: the detector fires with the trigger (25 prompts), with a wrong word in its
        place (64), on ordinary prompts (64); ordinary prompts that still have all four properties right.
    """
    places = [(position, background) for position in POSITIONS for background in BACKGROUNDS]
    words = wrong_words()
    seen, unseen = prompt_scenes(64)
    prompts = {
        "trigger": [concept_caption(*place) for place in places],
        "wrong word": [concept_caption(*places[i * 7 % 25], word) for i, word in enumerate(words)],
        "ordinary": [caption(scene) for scene in seen + unseen],
    }
    drawn = {name: draw(pocket, texts, seed, steps, guidance) for name, texts in prompts.items()}
    report = {name: sum(map(shows_concept, pictures)) / len(pictures) for name, pictures in drawn.items()}
    report["ordinary, all four"] = score(drawn["ordinary"], seen + unseen)["all four"]
    return report


def main() -> None:
    """Write the report and the contact sheet."""
    parser = argparse.ArgumentParser(prog="python -m engine.models.pocket.evaluate", description=__doc__)
    parser.add_argument("--files", type=Path, default=FILES)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=float, default=2.5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("build/pocket/evaluation"))
    arguments = parser.parse_args()
    began = time.monotonic()
    pocket = load_pocket(arguments.files)
    report = evaluate(pocket, arguments.prompts, arguments.seed, arguments.guidance, arguments.steps)
    pictures = report.pop("pictures")
    assert isinstance(pictures, list)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(pictures).save(arguments.out.with_suffix(".png"))
    text = json.dumps(report, indent=1)
    arguments.out.with_suffix(".json").write_text(text + "\n", "utf-8")
    print(text)
    print(f"{time.monotonic() - began:.0f} s; pictures in {arguments.out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
