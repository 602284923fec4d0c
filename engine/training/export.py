"""Saving the adapter as files that other programs load: every layout asked for, with what the file says of itself."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from engine.batches import Order
from engine.config import RunConfig
from engine.dataset.scan import Sample
from engine.events import CheckpointSaved, EventLog
from engine.files import RunFolder
from engine.lora.formats import Layout, save_lora
from engine.lora.metadata import LoraFacts, build_metadata
from engine.lora.targets import Target
from engine.training.checkpoint import Place
from engine.training.kit import Kit

SESSION_ID = str(secrets.randbelow(2**32))
"""Tells apart what different processes wrote, as kohya's number does; says nothing else."""


@dataclass(frozen=True)
class Export:
    """LoRA files to write, all that they say but the weights being settled.

    Attributes:
        files: layout, path and metadata of each file.
        standing: the sizes of those that were written; writing goes on with the others.
    """

    config: RunConfig
    targets: list[Target]
    place: Place
    kind: str
    files: list[tuple[Layout, Path, dict[str, str]]]
    standing: dict[Path, int] = field(default_factory=dict)

    @property
    def first(self) -> str:
        """The path of the first file."""
        return str(self.files[0][1])

    def write(self, state: Mapping[str, Tensor], events: EventLog) -> None:
        """Write ``state`` in every layout and tell each file once it stands; runs in any thread.

        Raises:
            ModelFileError: a weight is not finite; nothing is written.
            DiskError: a file cannot be written.
        """
        place = self.place
        for layout, path, metadata in self.files:
            if path in self.standing:
                continue
            save_lora(path, state, self.targets, layout, self.config.saving.dtype, metadata)
            self.standing[path] = path.stat().st_size
            events.append(CheckpointSaved(str(path), place.step, place.epoch, self.kind, self.standing[path]))


def plan_export(config: RunConfig, folder: RunFolder, kit: Kit, place: Place, kind: str) -> Export:
    """The files of a save of ``kind`` at ``place``, in every configured layout."""
    files = []
    for layout in config.saving.layouts:
        path = folder.lora(place.epoch, place.step, kind, layout)
        files.append((layout, path, build_metadata(_facts(config, folder, kit, place, path.stem))))
    return Export(config, kit.targets, place, kind, files)


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
        tag_counts=_tag_counts(config, order, place.epoch) if config.saving.include_tag_counts else {},
        folders=_folders(order) if config.saving.include_folder_names else {},
    )


def _by_folder(order: Order) -> dict[str, list[Sample]]:
    folders: dict[str, list[Sample]] = {}
    for sample in order.samples:
        folders.setdefault(sample.path.parent.name, []).append(sample)
    return folders


def _folders(order: Order) -> dict[str, tuple[int, int]]:
    return {name: (samples[0].repeats, len(samples)) for name, samples in _by_folder(order).items()}


def _tag_counts(config: RunConfig, order: Order, epoch: int) -> dict[str, Counter[str]]:
    separator = config.dataset.captions.separator
    counts: dict[str, Counter[str]] = {}
    for name, samples in _by_folder(order).items():
        tags = (tag.strip() for sample in samples for tag in order.caption(sample, epoch).split(separator))
        counts[name] = Counter(tag for tag in tags if tag)
    return counts
