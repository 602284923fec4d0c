"""The guide to trouble: what a user sees, what is behind it, what to change in the configuration that is shown.

Data and pure functions. The advice is general practice for LoRAs on FLUX; every remedy is computed from the values
at hand, one careful step at a time, and is offered in the setup form, never applied unseen.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from engine.config import RunConfig
from engine.events import Slowed
from engine.text import safe_text

Changes = dict[str, Any]
"""New values by dotted key of the configuration."""

SIDES = (1024, 768, 512, 256)
RATED = ("adamw", "adamw8bit", "paged_adamw", "paged_adamw8bit", "adamw_schedulefree", "adafactor")
"""Optimizers whose learning rate means the same."""


SWAPPED = (16, 32, 57)
"""Blocks to stream, step by step; 57 is all of FLUX.1's."""


@dataclass(frozen=True)
class Symptom:
    """One kind of trouble: its name, the signs of it, its usual causes, what helps, and what to change."""

    id: str
    name: str
    signs: str
    causes: tuple[str, ...]
    advice: tuple[str, ...]
    changes: Callable[[RunConfig], Changes]


def _less_memory(config: RunConfig) -> Changes:
    """What costs no quality first; then smaller pictures; then a smaller LoRA."""
    training, changes = config.training, Changes()
    if training.batch_size > 1:
        changes["training.batch_size"] = 1
        changes["training.accumulation"] = training.batch_size * training.accumulation
    if training.gradient_checkpointing == "none":
        changes["training.gradient_checkpointing"] = "full"
    if training.device != "cpu":
        if config.optimizer.name == "adamw":
            changes["optimizer.name"] = "adamw8bit"
        changes |= {} if changes else _smaller_base(config)
    return changes or _smaller_pictures(config) or _smaller_rank(config)


def _smaller_base(config: RunConfig) -> Changes:
    """The frozen base in 8 bit; then the blocks' inputs in host memory; then its weights, more and more of them."""
    memory = config.memory
    if memory.precision == "auto":
        return {"memory.precision": "int8"}
    if config.training.gradient_checkpointing != "offload":
        return {"training.gradient_checkpointing": "offload"}
    more = [count for count in SWAPPED if count > memory.blocks_to_swap]
    return {"memory.blocks_to_swap": more[0]} if more else {}


def _smaller_pictures(config: RunConfig) -> Changes:
    lower = [side for side in SIDES if side < config.dataset.resolution]
    return {"dataset.resolution": lower[0]} if lower else {}


def _smaller_rank(config: RunConfig) -> Changes:
    return _rank(config, config.lora.rank // 2) if config.lora.rank >= 8 else {}


def _rank(config: RunConfig, rank: int) -> Changes:
    """Another rank at the same strength."""
    changes: Changes = {"lora.rank": rank}
    if config.lora.alpha is not None:
        changes["lora.alpha"] = config.lora.alpha * rank / config.lora.rank
    return changes


def _faster(config: RunConfig, factor: float, least: float = 1e-6, most: float = 4e-4) -> Changes:
    """Another learning rate within sane bounds; nothing for optimizers that find their own, or take another scale."""
    now = config.optimizer.learning_rate
    then = min(most, max(least, now * factor))
    worth = (then > now) if factor > 1 else (then < now)
    return {"optimizer.learning_rate": float(f"{then:.3g}")} if worth and config.optimizer.name in RATED else {}


def _longer(config: RunConfig, factor: float) -> Changes:
    """More or less training; not beyond what helps anything."""
    changes = Changes()
    for name, most in (("epochs", 500), ("steps", 20_000)):
        now = getattr(config.training, name)
        then = max(1, min(round(now * factor), max(now, most)))
        if now and then != now:
            changes[f"training.{name}"] = then
    return changes


def _stuck(config: RunConfig) -> Changes:
    changes = _faster(config, 2)
    if config.schedule.warmup_steps > 200:
        changes["schedule.warmup_steps"] = 100
    return changes


def _more_effect(config: RunConfig) -> Changes:
    changes = Changes()
    if config.lora.alpha is not None and config.lora.alpha < config.lora.rank:
        changes["lora.alpha"] = float(config.lora.rank)
    elif config.optimizer.learning_rate < 1e-4:
        changes |= _faster(config, 2, most=1e-4)
    return changes | _longer(config, 2)


def _likeness(config: RunConfig) -> Changes:
    changes = Changes()
    if config.dataset.flip:
        changes["dataset.flip"] = False
    if config.dataset.resolution in (512, 768):
        changes["dataset.resolution"] = 1024
    if config.lora.rank < 32:
        changes |= _rank(config, config.lora.rank * 2)
    return changes or _longer(config, 1.5)


def _less_style(config: RunConfig) -> Changes:
    changes = _faster(config, 0.5)
    if config.lora.rank > 8:
        changes |= _smaller_rank(config)
    if config.dataset.captions.dropout == 0:
        changes["dataset.captions.dropout"] = 0.05
    return changes


def _less_training(config: RunConfig) -> Changes:
    changes = _longer(config, 0.6) | _faster(config, 0.5)
    if config.saving.every_epochs != 1:
        changes["saving.every_epochs"] = 1
    return changes


def _quicker(config: RunConfig) -> Changes:
    sampling, changes = config.sampling, Changes()
    if sampling.prompts and 0 < sampling.every_epochs < 8:
        changes["sampling.every_epochs"] = sampling.every_epochs * 2
    if sampling.prompts and 0 < sampling.every_steps < 1000:
        changes["sampling.every_steps"] = sampling.every_steps * 2
    if sampling.prompts and sampling.steps > 20:
        changes["sampling.steps"] = 20
    if config.training.mixed_precision == "no" and config.training.device != "cpu":
        changes["training.mixed_precision"] = "auto"
    return changes | _smaller_pictures(config)


SYMPTOMS: tuple[Symptom, ...] = (
    Symptom(
        "memory", "Out of memory at the start",
        "The run fails within its first steps: the GPU's memory is full.",
        ("The model, the activations of a batch and the optimizer's state do not fit together.",
         "Another program holds part of the GPU's memory."),
        ("Close what else uses the GPU (nvidia-smi lists it).",
         "One picture a batch with accumulation trains alike and needs less; checkpointing and an 8-bit optimizer "
         "cost little.",
         "Then smaller pictures; a smaller rank saves least."),
        _less_memory,
    ),
    Symptom(
        "stuck", "The loss does not fall",
        "The bright line stays flat, or only scatters.",
        ("Often nothing is wrong: most of a step's loss is the noise level drawn for it, and what a LoRA learns is a "
         "small part of the rest. Trust the samples.",
         "The learning rate is too low, or the warm-up too long."),
        ("Compare the samples of the first and the newest epoch before changing anything.",
         "Twice the learning rate shows within an epoch whether it was too low."),
        _stuck,
    ),
    Symptom(
        "nothing", "The LoRA has no effect",
        "Pictures with it look like pictures without it.",
        ("The prompt lacks the trigger word, or the LoRA is loaded with a strength near 0, or for another base.",
         "Too few steps, or an alpha far below the rank."),
        ("Try it at strength 1 with a caption of the dataset as the prompt.",
         "If that shows nothing, train longer; alpha as large as the rank gives full strength."),
        _more_effect,
    ),
    Symptom(
        "face", "The face is not right",
        "The person is alike, but not the same.",
        ("Too few sharp close-ups, or mixed ages and looks in the dataset.",
         "Captions describe what should be learned: hair, eyes, the shape of the face.",
         "Mirrored pictures teach a mirrored face; small pictures hold too little of it."),
        ("Keep 15 to 30 sharp pictures, a third of them close-ups, of one time.",
         "Name the trigger word and what changes between pictures (clothes, place, light), not the face.",
         "A higher rank holds more detail; full resolution shows it more."),
        _likeness,
    ),
    Symptom(
        "style", "The style drifts",
        "Every picture takes on the look of the dataset: its light, grain or colours, wanted or not.",
        ("All pictures share a look that no caption names, so it is learned as part of the concept.",
         "The learning rate or the rank is too high for what is to be learned."),
        ("Name light, medium and place in the captions, so that they stay apart from the concept.",
         "Add regularization pictures of the same class in other looks.",
         "A lower learning rate and rank learn less of everything; an earlier epoch has drifted less."),
        _less_style,
    ),
    Symptom(
        "over", "Over-trained",
        "Samples repeat the pictures of the dataset, ignore their prompts, or look burnt and oversharp.",
        ("Too many steps for the number of pictures, or a learning rate too high.",),
        ("Use an earlier epoch: the saved files are marked on the axis.",
         "Load the LoRA at strength 0.7 to 0.8.",
         "Next time train less, at half the rate, and save every epoch."),
        _less_training,
    ),
    Symptom(
        "slow", "It is slow",
        "A step takes much longer than others report.",
        ("Samples are drawn often, large or with many steps.",
         "Pictures are larger than needed: twice the side costs four times the time.",
         "The GPU is shared, hot or too small, so that the driver moves memory to and fro; or there is none in use."),
        ("The figures beside the curve say which part of a step takes the time.",
         "Watch temperature and memory; leave 1 GB free.",
         "Most concepts learn as well at 768 as at 1024."),
        _quicker,
    ),
)  # fmt: skip


def guide(slowed: Slowed | None = None) -> tuple[Symptom, ...]:
    """The symptoms to show; of a run whose steps take longer, first what its watch found, with the values to try."""
    if slowed is None:
        return SYMPTOMS
    told = tuple(slowed.changes)

    def changes(config: RunConfig) -> Changes:
        return told_changes(told, config) or _quicker(config)

    slow = next(symptom for symptom in SYMPTOMS if symptom.id == "slow")
    found = replace(slow, name="It has become slow", signs=safe_text(slowed.text, 600), changes=changes)
    return (found, *(symptom for symptom in SYMPTOMS if symptom.id != "slow"))


def told_changes(lines: tuple[str, ...], config: RunConfig) -> Changes:
    """Values that the watch proposes ("memory.blocks_to_swap = 24") and ``config`` does not have yet."""
    changes = Changes()
    for line in lines:
        try:
            table: dict[str, Any] = tomllib.loads(line)
        except (ValueError, RecursionError):  # events come from a file, which anybody may have written
            continue
        for part, values in table.items():
            known = getattr(config, part, None)
            for name, value in values.items() if isinstance(values, dict) else ():
                if hasattr(known, name) and getattr(known, name) != value:
                    changes[f"{part}.{name}"] = value
    return changes


def symptom_of(title: str) -> Symptom | None:
    """The symptom that a failed run's title tells of, if one does."""
    return SYMPTOMS[0] if "memory" in title.lower() else None
