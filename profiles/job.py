"""From a run's configuration, its pictures and its model files to a job in sizes; and jobs made up for planning.

Comes in: a checked configuration, the samples a scan found, what the model files' headers say. Goes out: a
:class:`~profiles.schema.Job` and :class:`~profiles.schema.Settings`, "auto" resolved as the engine would. Headers are
read, nothing else is; no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from engine.config import CANDIDATES, RunConfig
from engine.dataset.buckets import place
from engine.dataset.captions import final_caption, is_fixed
from engine.dataset.scan import Sample
from engine.draws import python_random
from engine.errors import ConfigError, DatasetError
from engine.models.detect import ModelInfo, expect
from profiles.estimate import steps_of
from profiles.products import has_bf16, kind_of
from profiles.schema import Bucket, Draws, Job, Kept, Machine, ModelSize, Precision, Settings

DEV: Mapping[str, Any] = MappingProxyType(
    {
        "in_channels": 64,
        "vec_in_dim": 768,
        "context_in_dim": 4096,
        "hidden_size": 3072,
        "mlp_ratio": 4.0,
        "num_heads": 24,
        "depth": 19,
        "depth_single_blocks": 38,
        "axes_dim": [16, 56, 56],
        "theta": 10_000,
        "qkv_bias": True,
        "guidance_embed": True,
        "out_channels": 64,
    }
)
"""FLUX.1-dev's sizes; schnell's are the same without guidance."""

TEXT_TOKENS = {"schnell": 256}
"""Tokens of a caption by variant where the configuration says 0; the others' are 512."""

MODELS = {
    "flux1-dev": ModelSize("flux1", "dev", DEV, 23_802_932_552, 9_787_841_024, 246_144_152, 335_304_388, "bf16", 512),
    "flux1-schnell": ModelSize(
        "flux1", "schnell", MappingProxyType({**DEV, "guidance_embed": False}),
        23_782_506_688, 9_787_841_024, 246_144_152, 335_304_388, "bf16", 256,
    ),
}  # fmt: skip
"""Published models with the sizes of their files, for plans without any."""

FILES = ("transformer", "autoencoder", "clip_l", "t5")


def job_of(
    config: RunConfig,
    samples: Sequence[Sample],
    infos: Mapping[str, ModelInfo] | None = None,
    packed: Collection[str] = (),
) -> Job:
    """What a run with this configuration trains.

    Regularization pictures are drawn anew in every epoch; the first epoch's stand for all.

    Args:
        config: the run's.
        samples: what a scan found.
        infos: what the files are, by their names in ``[model]``; read here when None.
        packed: precisions in which a packed copy of the base stands in the cache.

    Raises:
        ModelFileError: a file is missing or of another kind.
        ConfigError: the bucket settings allow no bucket.
        DatasetError: there are no pictures, or one is too small for any bucket.
    """
    seen = _epoch(config, samples)
    if not seen:
        raise DatasetError(
            "Nothing to plan for",
            "the dataset has no pictures that can be trained on",
            "Add pictures to a folder of dataset.folders.",
        )
    infos = infos or model_infos(config)
    buckets = _buckets(config, seen)
    training, saving = config.training, config.saving
    job = Job(
        model=model_size(config, infos),
        buckets=buckets,
        pictures=len(samples),
        views=_views(config, samples, seen),
        captions=_captions(config, samples, seen),
        epochs=training.epochs,
        steps=training.steps,
        layouts=len(saving.layouts),
        picture_megapixels=sum(each.width * each.height for each in samples) / 1e6 / max(1, len(samples)),
        base_is_packed=frozenset(packed),
        diffusers="diffusers" in saving.layouts,
        lora_itemsize=4 if saving.dtype == "float32" else 2,
        keep_states=saving.keep_states,
    )
    settings = Settings(batch=training.batch_size, accumulation=training.accumulation)
    each = epoch_steps(job, settings)
    steps = steps_of(job, settings)
    saves = _saves(config, each, steps)
    return replace(job, saves=saves, kept=_kept(config, saves), draws=_draws(config, each, steps))


def model_infos(config: RunConfig) -> dict[str, ModelInfo]:
    """What the four files of a configuration are, by their headers.

    Raises:
        ModelFileError: one is missing, damaged or of another kind.
    """
    return {kind: expect(getattr(config.model, kind), kind) for kind in FILES}


def model_size(config: RunConfig, infos: Mapping[str, ModelInfo]) -> ModelSize:
    """The base model in sizes."""
    transformer = infos["transformer"]
    return ModelSize(
        family=transformer.family,
        variant=transformer.variant,
        params=transformer.params,
        transformer_bytes=transformer.size_bytes,
        t5_bytes=infos["t5"].size_bytes,
        clip_bytes=infos["clip_l"].size_bytes,
        autoencoder_bytes=infos["autoencoder"].size_bytes,
        stored=transformer.dtype,
        text_tokens=config.model.t5_length or TEXT_TOKENS.get(transformer.variant, 512),
    )


def job_for(
    model: str = "flux1-dev",
    resolution: int = 1024,
    pictures: int = 20,
    repeats: int = 1,
    epochs: int = 10,
    steps: int = 0,
    prompts: int = 0,
    every: int = 1,
) -> Job:
    """A job for planning without files: square pictures, a caption each, a LoRA and samples every so many epochs.

    Args:
        model: one of :data:`MODELS`.
        resolution: side of a picture.
        pictures: how many.
        repeats: turns of each in an epoch.
        epochs: 0 leaves the end to ``steps``.
        steps: most steps; 0 leaves the end to ``epochs``.
        prompts: sample pictures of the same size, drawn with every save.
        every: epochs from one save to the next.

    Raises:
        ConfigError: no model is called that.
    """
    if model not in MODELS:
        known = ", ".join(MODELS)
        raise ConfigError("Unknown model", f"{model!r} is none of the models that can be planned", f"Known: {known}.")
    side = max(16, resolution // 16 * 16)
    job = Job(
        model=MODELS[model],
        buckets=(Bucket(side, side, pictures * repeats),),
        pictures=pictures,
        views=pictures,
        captions=pictures + prompts,
        epochs=epochs,
        steps=steps,
    )
    times = (epochs or -(-steps // (pictures * repeats))) // every
    draws = Draws(prompts, side, side, times=times) if prompts else Draws()
    return replace(job, saves=times + 1, draws=draws)


def settings_of(config: RunConfig, machine: Machine) -> Settings:
    """The configuration's choices on a machine, "auto" resolved as the engine does."""
    memory, training, lora = config.memory, config.training, config.lora
    precision: Precision = memory.precision if memory.precision != "auto" else _dtype(config, machine)
    card = None if training.device == "cpu" else machine.card
    eight_bit = kind_of(precision, "8bit", card) == precision and memory.compute != "wide"
    checkpointing: Kept = training.gradient_checkpointing
    return Settings(
        precision=precision,
        compute="8bit" if eight_bit else "wide",
        blocks_to_swap=memory.blocks_to_swap,
        checkpointing=checkpointing,
        modulation_cache=memory.modulation_cache,
        batch=training.batch_size,
        accumulation=training.accumulation,
        rank=lora.rank,
        targets=lora.targets,
        optimizer=config.optimizer.name,
    )


def _dtype(config: RunConfig, machine: Machine) -> Precision:
    """What the base is kept in unpacked (:func:`engine.training.device.wanted_dtype`, then what the card has)."""
    asked: str = config.model.dtype
    if asked == "auto":
        asked = {"bf16": "bfloat16", "no": "float32"}.get(config.training.mixed_precision, "auto")
    if asked == "auto":
        card = None if config.training.device == "cpu" else machine.card
        return "bf16" if has_bf16(card) else "float32"
    return "bf16" if asked == "bfloat16" else "float32"


def _epoch(config: RunConfig, samples: Sequence[Sample]) -> list[Sample]:
    """The first epoch's turns, as :class:`engine.batches.Order` has them."""
    concept = [each for each in samples if not each.regularization for _ in range(each.repeats)]
    others = [each for each in samples if each.regularization for _ in range(each.repeats)]
    if not concept:
        return others
    draw = python_random(config.seed, "regularization", 1)
    chosen: list[Sample] = []
    while others and len(chosen) < len(concept):
        draw.shuffle(others)
        chosen += others
    return concept + chosen[: len(concept)]


def _buckets(config: RunConfig, seen: Sequence[Sample]) -> tuple[Bucket, ...]:
    dataset = config.dataset
    sizes: Counter[tuple[int, int]] = Counter()
    for sample in seen:
        found = place(sample.width, sample.height, dataset.resolution, dataset.buckets)
        sizes[found.bucket_w, found.bucket_h] += 1
    return tuple(Bucket(width, height, count) for (width, height), count in sorted(sizes.items()))


def _views(config: RunConfig, samples: Sequence[Sample], seen: Sequence[Sample]) -> int:
    """Entries of the cache of latents: crops differ in nearly every turn, of flips there are two."""
    dataset, epochs = config.dataset, _epochs(config)
    if dataset.random_crop:
        return len(seen) * epochs
    once = len(seen) * epochs <= len(samples)
    return len(samples) * (2 if dataset.flip and not once else 1)


def _captions(config: RunConfig, samples: Sequence[Sample], seen: Sequence[Sample]) -> int:
    """Texts to encode: the captions as they are trained on, and the prompts of samples."""
    settings, sampling = config.dataset.captions, config.sampling
    prompts = {prompt.prompt for prompt in sampling.prompts}
    if sampling.cfg != 1.0:
        prompts |= {prompt.negative for prompt in sampling.prompts}
    if not is_fixed(settings):
        return len(seen) * _epochs(config) + len(prompts)
    finals = {final_caption(each.caption, settings, config.seed, 1, 0, each.regularization) for each in samples}
    return len(finals | prompts)


def _epochs(config: RunConfig) -> int:
    return config.training.epochs or 1


def epoch_steps(job: Job, settings: Settings) -> int:
    """Steps of one whole epoch."""
    return steps_of(replace(job, epochs=1, steps=0), settings)


def _saves(config: RunConfig, each: int, steps: int) -> int:
    """LoRA files: as the cadence says, and one at the end."""
    saving = config.saving
    return _due(steps, each, saving.every_epochs, saving.every_steps) + 1


RECOMMENDED = 3
"""Epochs that the advisor keeps from being removed: the best one and its neighbours."""


def _kept(config: RunConfig, saves: int) -> int:
    """LoRA files that stand at most at a time, with the last one and one that is about to go; 0 where all stay."""
    saving, validation = config.saving, config.validation
    advising = config.stop.mode != "off" and bool(validation.every_epochs or validation.every_steps)
    candidates = CANDIDATES + RECOMMENDED + 1 if advising and saving.every_epochs != 1 else 0
    rolling = max(saving.keep_loras, RECOMMENDED + 1 if advising else 0) + 1 if saving.keep_loras else saves
    kept = min(rolling, saves - 1) + 1 + candidates if saving.keep_loras else saves + candidates
    return kept if kept != saves else 0


def _draws(config: RunConfig, each: int, steps: int) -> Draws:
    sampling = config.sampling
    if not sampling.prompts:
        return Draws()
    times = _due(steps, each, sampling.every_epochs, sampling.every_steps) + sampling.at_start
    prompts = sampling.prompts
    return Draws(
        count=len(prompts) * len(sampling.strengths),
        width=max(prompt.width or sampling.width for prompt in prompts),
        height=max(prompt.height or sampling.height for prompt in prompts),
        steps=round(sum(prompt.steps or sampling.steps for prompt in prompts) / len(prompts)),
        cfg=sampling.cfg != 1.0,
        times=times,
    )


def _due(steps: int, each: int, every_epochs: int, every_steps: int) -> int:
    """How often something falls due that is due every so many epochs, and every so many steps besides."""
    by_epoch = {epoch * each for epoch in range(1, steps // each + 1) if every_epochs and epoch % every_epochs == 0}
    by_steps = set(range(every_steps, steps + 1, every_steps)) if every_steps else set()
    return len(by_epoch | by_steps)
