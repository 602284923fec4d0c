"""From a configuration to everything a loop needs on disk: checked model files, scanned pictures, filled caches.

Encoders live only inside this stage; when it returns they have left the GPU. ``kiln cache`` is this stage alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from engine.batches import Order
from engine.cache.latents import View, cache_latents
from engine.cache.masks import cache_masks
from engine.cache.store import Store
from engine.cache.text import cache_text
from engine.config import PromptConfig, RunConfig
from engine.dataset.decoder import Decoder
from engine.dataset.decoder_pool import DecoderPool
from engine.dataset.history import CaptionHistory
from engine.dataset.scan import Sample, file_digest, scan_dataset
from engine.dataset.sidecar import SIDECAR_NAME
from engine.events import EventLog, Log, Progress
from engine.files import default_cache_dir
from engine.memory.plan import check_swap
from engine.memory.precision import require
from engine.models.detect import ModelInfo, expect
from engine.models.family import Family, family_of
from engine.models.header import file_fingerprint
from engine.models.scorer_files import check_scorers
from engine.text import safe_text
from engine.training.device import Compute
from engine.training.entries import Entries
from engine.training.measured_pictures import NOTHING, MeasuredPictures, choose_measured, split
from engine.training.record import Record, take_record


class Stopped(Exception):
    """The user asked to stop during a stage; carries nothing, loses nothing."""


@dataclass(frozen=True)
class Base:
    """The model files of a run, recognised and checked by their headers."""

    family: Family
    transformer: ModelInfo

    @property
    def variant(self) -> str:
        """dev or schnell."""
        return self.transformer.variant

    @property
    def blocks(self) -> int:
        """How many blocks the transformer has."""
        params = self.transformer.params
        return params.get("depth", 0) + params.get("depth_single_blocks", 0)


@dataclass(frozen=True)
class Prepared:
    """What a loop reads: the order of samples, and the cache keys of every view and caption in it.

    ``identity`` and ``record`` say what a resumed run must share with this one: in digests, and thing by thing.
    """

    base: Base
    order: Order
    store: Store
    latents: dict[View, str]
    texts: dict[str, str]
    identity: dict[str, str]
    record: Record
    measured: MeasuredPictures = NOTHING
    masks: Mapping[View, str] = field(default_factory=dict)

    def entries(self, config: RunConfig) -> Entries:
        """What reads the caches for batches."""
        return Entries(self.store, self.latents, self.texts, config.seed, self.masks, config.dataset.masks.outside)


def check_base(config: RunConfig) -> Base:
    """Recognise the four model files.

    Raises:
        ModelFileError: one is missing, incomplete, damaged or of another kind; or a model that scores samples is.
        ConfigError: more blocks are to stream than there are, or nf4 without bitsandbytes.
    """
    info = expect(config.model.transformer, "transformer")
    for path, kind in (
        (config.model.autoencoder, "autoencoder"),
        (config.model.clip_l, "clip_l"),
        (config.model.t5, "t5"),
    ):
        expect(path, kind)
    _check_memory(config, info)
    check_scorers(config.sampling)
    return Base(family_of(info), info)


def _check_memory(config: RunConfig, info: ModelInfo) -> None:
    """What [memory] asks for that can be known to fail before anything is scanned or cached."""
    require(config.memory.precision)
    if blocks := info.params.get("depth", 0) + info.params.get("depth_single_blocks", 0):
        check_swap(config.memory.blocks_to_swap, blocks)


def scan(
    config: RunConfig, decoder: Decoder, events: EventLog, known: Mapping[str, str] | None = None
) -> tuple[Sample, ...]:
    """Scan the dataset and say every problem in the log; ``known`` are the captions of a run in progress.

    Raises:
        DatasetError: nothing can be trained on, or some files have errors; training on the rest silently would not
            be what was asked for.
    """

    def report(done: int, total: int) -> None:
        events.append(Progress("scan", done, total))

    found = scan_dataset(config.dataset, decoder, report, known)
    for problem in found.problems:
        level = "error" if problem.severity == "error" else "warning"
        events.append(Log(level, safe_text(f"{problem.path}: {problem.message}", 5000)))
    if found.excluded:
        events.append(Log("info", f"{found.excluded} pictures are excluded ({SIDECAR_NAME})"))
    found.require_clean()
    return found.samples


def open_store(config: RunConfig) -> Store:
    """The cache that a run uses."""
    return Store(config.cache_dir or default_cache_dir())


def prompt_captions(prompts: Iterable[PromptConfig], cfg: float) -> set[str]:
    """The texts that sampling needs embedded; negatives only where guidance by difference is on."""
    texts: set[str] = set()
    for prompt in prompts:
        texts.add(prompt.prompt)
        if cfg != 1.0:
            texts.add(prompt.negative)
    return texts


def prepare(
    config: RunConfig,
    base: Base,
    compute: Compute,
    events: EventLog,
    should_stop: Callable[[], bool],
    history: CaptionHistory | None = None,
    samples: tuple[Sample, ...] = (),
) -> Prepared:
    """Scan, plan every epoch and fill both caches.

    Args:
        config: the run's.
        base: its model files.
        compute: where the encoders run.
        events: where progress and problems are told.
        should_stop: asked now and then.
        history: the captions of a run in progress.
        samples: what another process found; nothing is scanned then.

    Raises:
        EngineError: of the kind of what failed, see :func:`scan`, the caches and the model loaders.
        Stopped: ``should_stop`` became true.
    """
    store = open_store(config)
    held_out: tuple[Sample, ...] = ()
    seen = samples
    with Decoder(config.dataset.max_megapixels) as scanner:
        if not samples:
            seen = scan(config, scanner, events, history.latest() if history else None)
            samples, held_out = split(seen, config, scanner, events)
    order = Order(samples, config, compute.processes)
    for epoch, texts in sorted(history.epochs.items() if history else ()):
        order.take(epoch, {s.index: texts[str(s.path)] for s in samples if str(s.path) in texts})
    measured = choose_measured(config, order, held_out) if compute.is_main else NOTHING
    views, captions = _unique(order, should_stop)
    if len(views) + len(captions) > 4 * len(samples):
        text = f"Crops, flips or captions vary: {len(views)} views and {len(captions)} captions are cached"
        events.append(Log("info", text))
    with DecoderPool(config.dataset.max_megapixels) as decoder:
        views = list(dict.fromkeys([*views, *measured.views(config)]))
        latents = _latents(config, base, compute, views, store, decoder, events, should_stop)
        masks = cache_masks(views, store, decoder, partial(_report, events, "cache masks"), should_stop)
        if should_stop():
            raise Stopped
    texts = embed_texts(
        config,
        base,
        compute,
        captions | prompt_captions(config.sampling.prompts, config.sampling.cfg) | measured.captions(config),
        store,
        events,
        should_stop,
    )
    if store.damaged:
        events.append(Log("warning", f"{len(store.damaged)} damaged cache entries were found and made again"))
    versions = {"device": compute.name, "precision": compute.precision, "processes": str(compute.processes)}
    record = take_record(config, seen, versions)
    what = identity(config, base, order, compute)
    return Prepared(base, order, store, latents, texts, what, record, measured, masks)


def _unique(order: Order, should_stop: Callable[[], bool]) -> tuple[list[View], set[str]]:
    views: dict[View, None] = {}
    captions: set[str] = set()
    for number, item in enumerate(order.items()):
        views[item.view] = None
        captions.add(item.caption)
        if number % 10_000 == 9_999 and should_stop():
            raise Stopped
    return list(views), captions


def _latents(
    config: RunConfig,
    base: Base,
    compute: Compute,
    views: list[View],
    store: Store,
    decoder: DecoderPool,
    events: EventLog,
    should_stop: Callable[[], bool],
) -> dict[View, str]:
    # The autoencoder stays in float32: in 16 bit it shows in the latents, and it is small and runs once.
    fingerprint = base.family.autoencoder_fingerprint(config.model, torch.float32)
    found = cache_latents(
        views,
        config.dataset,
        store,
        decoder,
        lambda: base.family.load_autoencoder(config.model, compute.device, torch.float32),
        fingerprint,
        lambda done, total, name: _report(events, "cache latents", done, total, name),
        should_stop,
        _warn(events),
    )
    if should_stop():
        raise Stopped
    return found


def embed_texts(
    config: RunConfig,
    base: Base,
    compute: Compute,
    captions: set[str],
    store: Store,
    events: EventLog,
    should_stop: Callable[[], bool],
) -> dict[str, str]:
    """Embed captions that the cache lacks; returns each caption's key.

    Raises:
        Stopped: ``should_stop`` became true.
    """
    family, model = base.family, config.model
    fingerprint = family.text_fingerprint(model, compute.encoder_dtype)
    found = cache_text(
        sorted(captions),
        store,
        lambda: family.load_text_encoder(model, compute.device, compute.encoder_dtype),
        fingerprint,
        lambda done, total, name: _report(events, "cache text", done, total, name),
        should_stop,
        _warn(events),
    )
    if should_stop():
        raise Stopped
    return found


def _warn(events: EventLog) -> Callable[[str], None]:
    def tell(text: str) -> None:
        events.append(Log("warning", text))

    return tell


def _report(events: EventLog, stage: str, done: int, total: int, name: str) -> None:
    events.append(Progress(stage, done, total, safe_text(name, 200)))


def identity(config: RunConfig, base: Base, order: Order, compute: Compute) -> dict[str, str]:
    """Digests of what a resumed run must share with the one it goes on from, by a name a user knows."""
    pictures = hashlib.sha256()
    for sample in order.samples:
        pictures.update(f"{sample.repeats}/{sample.regularization}/{file_digest(sample.path)}\n".encode())
        # Only where there is one: states of earlier versions have the digest of pictures without.
        if sample.box is not None:
            pictures.update(f"{sample.box}\n".encode())
        if sample.mask is not None and sample.mask != sample.path:
            pictures.update(f"{file_digest(sample.mask)}\n".encode())
    # The captions that the run began with: what was edited since is in its history.
    first = "\0".join(order.caption(sample, 1) for sample in order.samples)
    captions = hashlib.sha256(first.encode("utf-8", "surrogatepass"))
    family, model = base.family, config.model
    encoders = family.autoencoder_fingerprint(model, torch.float32) + family.text_fingerprint(
        model, compute.encoder_dtype
    )
    return {
        "base model": file_fingerprint(base.transformer.path),
        "encoders": hashlib.sha256(encoders.encode()).hexdigest(),
        "pictures": pictures.hexdigest(),
        "captions": captions.hexdigest(),
        "settings": settings_digest(config, compute.processes),
        "torch version": torch.__version__,
        "device": compute.name,
    }


def settings_digest(config: RunConfig, processes: int) -> str:
    """Digest of every setting that changes what is learned; where to save and what to sample do not."""
    return hashlib.sha256(f"{sorted(trained_settings(config).items())}/{processes}".encode()).hexdigest()


def trained_settings(config: RunConfig) -> dict[str, Any]:
    """Those settings, as plain values."""
    # As a setting of an earlier version had it: a run without masks is the same run.
    masks: Any = True if config.dataset.masks.source == "off" else {"folder"}
    return config.model_dump(
        mode="json",
        include={
            "seed": True,
            "model": {"dtype", "t5_length", "t5_mask"},
            "dataset": True,
            "lora": True,
            "objective": True,
            "optimizer": True,
            "schedule": True,
            "training": True,
            "memory": {"precision", "compute"},
            "validation": {"held_out"},
        },
        exclude={
            "dataset": {"folders": {"__all__": {"path"}}, "masks": masks, "captions": {"template"}},
            "lora": {"resume_from"},
            "training": {"state_every_steps", "device", "threads", "gradient_checkpointing"},
        },
    )
