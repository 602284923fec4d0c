"""Saving the adapter as files that other programs load: every layout asked for, with what the file says of itself."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from importlib.metadata import version

from engine.batches import Order
from engine.config import RunConfig
from engine.dataset.scan import Sample
from engine.events import CheckpointSaved, EventLog
from engine.files import RunFolder
from engine.lora.formats import save_lora
from engine.lora.metadata import LoraFacts, build_metadata
from engine.training.checkpoint import Place
from engine.training.kit import Kit

SESSION_ID = str(secrets.randbelow(2**32))
"""Tells apart what different processes wrote, as kohya's number does; says nothing else."""


def export_lora(config: RunConfig, folder: RunFolder, kit: Kit, place: Place, kind: str, events: EventLog) -> str:
    """Write the LoRA in every configured layout and tell each file; returns the path of the first.

    Raises:
        ModelFileError: a weight is not finite; nothing is written.
        DiskError: a file cannot be written.
    """
    state = kit.lora.state()
    paths = []
    for layout in config.saving.layouts:
        path = folder.lora(place.epoch, place.step, kind, layout)
        metadata = build_metadata(_facts(config, folder, kit, place, path.stem))
        save_lora(path, state, kit.targets, layout, config.saving.dtype, metadata)
        events.append(CheckpointSaved(str(path), place.step, place.epoch, kind, path.stat().st_size))
        paths.append(str(path))
    return paths[0]


def _facts(config: RunConfig, folder: RunFolder, kit: Kit, place: Place, output_name: str) -> LoraFacts:
    family, order, now = kit.base.family, kit.prepared.order, time.time()
    first = order.epoch_steps(1)
    seen = [item for step in first for micro in step for item in micro.items]
    counted = [item for item in seen if not item.view.sample.regularization]
    placements = [item.view.placement for item in counted]
    return LoraFacts(
        config=config,
        architecture=f"{family.architecture(kit.base.variant)}/lora",
        base_model_version=family.base_model_version,
        output_name=output_name,
        session_id=SESSION_ID,
        started_at=now - place.elapsed_s,
        saved_at=now,
        step=place.step,
        epoch=place.epoch,
        total_steps=order.total_steps,
        total_epochs=order.total_epochs,
        num_train_images=len(counted),
        num_reg_images=len(seen) - len(counted),
        batches_per_epoch=sum(len(step) for step in first),
        guidance_embedded=family.uses_guidance(kit.transformer),
        text_length=family.text_length(kit.base.variant, config.model),
        mixed_precision=kit.compute.precision,
        tool=f"lorakiln {version('lorakiln')}",
        buckets=Counter((placement.bucket_w, placement.bucket_h) for placement in placements),
        tag_counts=_tag_counts(config, order) if config.saving.include_tag_counts else {},
        folders=_folders(order) if config.saving.include_folder_names else {},
    )


def _by_folder(order: Order) -> dict[str, list[Sample]]:
    folders: dict[str, list[Sample]] = {}
    for sample in order.samples:
        folders.setdefault(sample.path.parent.name, []).append(sample)
    return folders


def _folders(order: Order) -> dict[str, tuple[int, int]]:
    return {name: (samples[0].repeats, len(samples)) for name, samples in _by_folder(order).items()}


def _tag_counts(config: RunConfig, order: Order) -> dict[str, Counter[str]]:
    separator = config.dataset.captions.separator
    counts: dict[str, Counter[str]] = {}
    for name, samples in _by_folder(order).items():
        tags = (tag.strip() for sample in samples for tag in sample.caption.split(separator))
        counts[name] = Counter(tag for tag in tags if tag)
    return counts
