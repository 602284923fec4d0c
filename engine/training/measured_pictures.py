"""Which pictures and prompts a run is measured on: chosen before the caches are filled, the same ones all the run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.batches import Order
from engine.cache.latents import View
from engine.config import CaptionConfig, DatasetConfig, FolderConfig, MaskConfig, RunConfig
from engine.dataset.buckets import place
from engine.dataset.captions import final_caption
from engine.dataset.decoder import Decoder
from engine.dataset.held_out import set_aside
from engine.dataset.scan import Sample, scan_dataset
from engine.events import EventLog, Log
from engine.text import safe_text
from engine.training.measuring_plan import Plan, plan_measuring

PLAIN_PROMPTS = (
    "a photograph of a quiet street in the morning",
    "a portrait of a woman in a library",
    "an oil painting of mountains behind a lake",
    "a bowl of fruit on a wooden table",
    "a dog running across a meadow",
    "a man in a grey suit in front of a white wall",
    "a drawing of a castle on a hill",
    "a close-up of leaves after the rain",
)
"""Ordinary prompts, where a dataset gives none."""


@dataclass(frozen=True)
class MeasuredPictures:
    """What is measured, and on what.

    Attributes:
        held_out: never trained on.
        train: a fixed part of the training pictures.
        prompts: ordinary prompts for the drift.
    """

    plan: Plan
    held_out: tuple[Sample, ...] = ()
    train: tuple[Sample, ...] = ()
    prompts: tuple[str, ...] = ()

    def views(self, config: RunConfig) -> list[View]:
        """How the pictures are seen: cropped at the centre, not mirrored."""
        return [view_of(sample, config.dataset) for sample in (*self.held_out, *self.train)]

    def captions(self, config: RunConfig) -> set[str]:
        """Every text that has to be embedded."""
        own = {caption_of(sample, config) for sample in (*self.held_out, *self.train)}
        return own | set(self.prompts)


NOTHING = MeasuredPictures(Plan(0, 0, (0.5,), 1, 0, 0))
"""For runs that measure nothing."""


def view_of(sample: Sample, config: DatasetConfig) -> View:
    """A picture as it is measured."""
    return View(sample, place(sample.width, sample.height, config.resolution, config.buckets), flip=False)


def caption_of(sample: Sample, config: RunConfig) -> str:
    """The caption that a picture is measured with: as it was when the run began, nothing dropped or shuffled."""
    fixed = config.dataset.captions.model_copy(update={"dropout": 0.0, "tag_dropout": 0.0, "shuffle": False})
    return _final(sample, fixed, config)


def _final(sample: Sample, captions: CaptionConfig, config: RunConfig) -> str:
    return final_caption(sample.caption, captions, config.seed, 0, 0, sample.regularization)


def split(
    samples: Sequence[Sample], config: RunConfig, decoder: Decoder, events: EventLog
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Training pictures and held-out ones.

    Raises:
        DatasetError: a picture cannot be decoded, or ``validation.folder`` holds nothing that can be measured.
    """
    validation = config.validation
    if validation.folder is not None:
        masks = config.dataset.masks
        if masks.source == "folder" and not (validation.folder / masks.folder).is_dir():
            masks = MaskConfig()  # nobody has to paint masks for pictures that are only measured
        folders = (FolderConfig(path=validation.folder),)
        dataset = config.dataset.model_copy(update={"folders": folders, "masks": masks})
        found = scan_dataset(dataset, decoder)
        found.require_clean()
        return tuple(samples), found.samples
    training, held = set_aside(samples, validation, decoder)
    if held:
        names = safe_text(", ".join(sample.name for sample in held), 400)
        events.append(Log("info", f"{len(held)} pictures are held out to measure on (validation.held_out): {names}"))
    return training, held


def choose_measured(config: RunConfig, order: Order, held_out: Sequence[Sample]) -> MeasuredPictures:
    """What a run of ``order`` is measured on."""
    validation = config.validation
    if validation.every_epochs == 0 and not validation.every_steps:
        return NOTHING
    own = _by_content(sample for sample in order.samples if not sample.regularization)
    prompts = _prompts(config, order)
    seen = sum(len(micro.items) for step in order.epoch_steps(1) for micro in step)
    steps = max(len(order.epoch_steps(1)), 1)
    plan = plan_measuring(
        validation, len(held_out), len(own), len(prompts), seen * order.total_steps // steps, order.total_epochs
    )
    held = _by_content(held_out)[: plan.held_out]
    return MeasuredPictures(plan, tuple(held), tuple(own[: plan.train]), prompts[: plan.prompts])


def _by_content(samples: Iterable[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda sample: (sample.content_hash, sample.name))


def _prompts(config: RunConfig, order: Order) -> tuple[str, ...]:
    if config.validation.prompts:
        return config.validation.prompts
    others = _by_content(sample for sample in order.samples if sample.regularization)
    captions = dict.fromkeys(caption_of(sample, config) for sample in others)
    return tuple(caption for caption in captions if caption) or PLAIN_PROMPTS
