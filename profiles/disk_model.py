"""What a run leaves on disk, by part: the formats of cache, LoRA files, states and pictures, in bytes."""

from __future__ import annotations

from profiles.memory_model import Held

HEADER = 400
"""A cache entry's header: names, shapes, key and checksum."""

PICTURE = 1.6
"""Bytes a pixel of a sample picture as PNG. An assumption."""

MODULE_HEADER = 330
"""A module's three entries in a LoRA file's header."""

METADATA = 6000
"""What a LoRA file says of itself."""


def disk(held: Held) -> dict[str, int]:
    """Bytes by part; those called "cache ..." stand in the cache's folder, the others in the run's."""
    job, settings = held.job, held.settings
    parts = {"cache latents": latents(held), "cache captions": job.captions * caption(held)}
    if settings.precision in ("int8", "fp8", "nf4") and not _direct(held):
        # One that stands there already takes nothing more, and is what the run needs all the same.
        parts["cache packed base"] = 0 if settings.precision in job.base_is_packed else sum(held.plan.sizes)
    parts["LoRA files"] = lora_files(held)
    # A new state stands beside the old ones before the oldest goes.
    parts["states"] = (job.keep_states + 1) * held.trained.state
    draws = job.draws
    parts["samples"] = int(draws.count * draws.times * draws.width * draws.height * PICTURE)
    return {name: size for name, size in parts.items() if size}


def _direct(held: Held) -> bool:
    """A file that holds the blocks as they are wanted is not kept a second time."""
    return held.settings.precision == "fp8" and held.job.model.stored.startswith("fp8_e4m3fn")


def latents(held: Held) -> int:
    """Mean and spread of every view in float32, 16 channels at an eighth of each side."""
    turns = sum(bucket.count for bucket in held.job.buckets) or 1
    pixels = sum(bucket.width * bucket.height * bucket.count for bucket in held.job.buckets) / turns
    return held.job.views * (int(2 * 16 * 4 * pixels / 64) + HEADER)


def caption(held: Held) -> int:
    """States of a caption in the encoder's dtype, its pooled vector and its mask."""
    tokens = held.job.model.text_tokens
    states = tokens * held.size.context_in_dim * (2 if held.card is not None else 4)
    return states + 4 * held.size.vec_in_dim + tokens + HEADER


def lora_files(held: Held) -> int:
    """Every save that stays, in every layout."""
    job = held.job
    saves = job.kept or job.saves
    kohya = job.layouts - (1 if job.diffusers else 0)
    return saves * (kohya * lora_file(held, False) + (lora_file(held, True) if job.diffusers else 0))


def lora_file(held: Held, diffusers: bool) -> int:
    """One LoRA file; diffusers names the parts of fused matrices one by one, each with its own down matrix."""
    settings, values, modules = held.settings, 0, 0
    for inputs, outputs, count in held.size.adapted(settings.targets):
        parts = _parts(held, inputs, outputs) if diffusers else 1
        values += count * settings.rank * (parts * inputs + outputs)
        modules += count * parts
    return values * held.job.lora_itemsize + modules * (MODULE_HEADER + 4) + METADATA


def _parts(held: Held, inputs: int, outputs: int) -> int:
    width = held.size.hidden_size
    if inputs == width and outputs == 3 * width + held.size.mlp_hidden:
        return 4
    return 3 if inputs == width and outputs == 3 * width else 1
