"""What a configuration should be warned of by its recipe: values that guides do not agree with. Pure, no torch.

The bands are the recipe's data; here stand the rules that hold for every subject, where guides disagree: alpha as
rank, a constant rate so that stopping early stays valid, guidance 1.0 while training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.config import RunConfig
from profiles.choices import ADAM
from profiles.recipes import Recipe

LION_SHARE = 1 / 5
"""Lion's updates are all of one size, so its rates are 3 to 10 times smaller than Adam's (arXiv 2302.06675)."""

MANY_TIMES = 4
"""A rank so many times the recipe's is worth a word."""


@dataclass(frozen=True)
class Advice:
    """One thing to reconsider.

    Attributes:
        key: the setting's dotted name.
        level: "amber" may work, "red" rarely does.
    """

    key: str
    level: Literal["amber", "red"]
    text: str


def total_steps(images: int, repeats: int, epochs: int, batch: int) -> int:
    """Steps of a run whose pictures are all of one size; several sizes fill a few batches less."""
    return epochs * -(-images * repeats // batch)


def advice(config: RunConfig, recipe: Recipe, images: int) -> tuple[Advice, ...]:
    """What is unusual about ``config`` for ``recipe`` and so many pictures, red before amber."""
    found = [*_pictures(recipe, images), *_rate(config, recipe), *_length(config, recipe, images)]
    found += [*_lora(config, recipe), *_others(config)]
    return tuple(sorted(found, key=lambda each: each.level != "red"))


def _pictures(recipe: Recipe, images: int) -> list[Advice]:
    wanted = recipe.file.pictures
    if images < wanted.least:
        text = f"{images} pictures are few for a {recipe.file.title}: {wanted.least} at least, better {wanted.best}."
        return [Advice("dataset.folders", "red" if 2 * images < wanted.least else "amber", text)]
    if images > wanted.most:
        text = f"{images} pictures are many for a {recipe.file.title}: the best {wanted.most} teach it as well."
        return [Advice("dataset.folders", "amber", text)]
    return []


def _rate(config: RunConfig, recipe: Recipe) -> list[Advice]:
    key, name, rate = "optimizer.learning_rate", config.optimizer.name, config.optimizer.learning_rate
    if name == "prodigy":
        text = f"Prodigy finds the rate itself: {rate:g} should be 1."
        return [] if 0.5 <= rate <= 2 else [Advice(key, "red", text)]
    if "lion" in name:
        return _banded(key, rate, recipe, LION_SHARE)
    if name in (*ADAM, "adafactor", "adamw_schedulefree"):
        return _banded(key, rate, recipe, 1.0)
    return []


def _banded(key: str, rate: float, recipe: Recipe, share: float) -> list[Advice]:
    low, high = (bound * share for bound in recipe.file.learning_rate.green)
    amber = recipe.file.learning_rate.amber * share
    usual = f"{low:g} to {high:g} is usual"
    if rate > amber:
        return [
            Advice(key, "red", f"{rate:g} is too high: {usual}; samples would be overcooked before it is learned.")
        ]
    if rate > high:
        return [Advice(key, "amber", f"{rate:g} is high: {usual}. Look at samples early.")]
    if rate < low:
        return [Advice(key, "amber", f"{rate:g} is low: {usual}. It takes many more steps.")]
    return []


def _length(config: RunConfig, recipe: Recipe, images: int) -> list[Advice]:
    """Steps outside the recipe's band: images x repeats x epochs / batch."""
    training = config.training
    repeats = max((folder.repeats for folder in config.dataset.folders if not folder.regularization), default=1) or 1
    batch = training.batch_size * training.accumulation
    steps = total_steps(images, repeats, training.epochs, batch) if training.epochs else training.steps
    steps = min(steps, training.steps) if training.steps else steps
    times = f" x {repeats} repeats" if repeats > 1 else ""
    sum_of_it = f"{images} pictures{times} x {training.epochs} epochs / {batch} = {steps:,} steps"
    told = sum_of_it if training.epochs and not training.steps else f"{steps:,} steps"
    band = recipe.file.steps
    # A step of several pictures learns more than one of one, if less than so many times as much.
    if steps * batch < band.least:
        return [
            Advice("training.epochs", "amber", f"{told}: few. A {recipe.file.title} takes {band.least:,} or more.")
        ]
    if steps > band.most:
        return [Advice("training.epochs", "amber", f"{told}: many. Beyond {band.most:,} a LoRA mostly overtrains.")]
    return []


def _lora(config: RunConfig, recipe: Recipe) -> list[Advice]:
    found = []
    rank = config.lora.rank
    if config.lora.alpha is not None and config.lora.alpha != rank:
        strength = config.lora.alpha / rank
        text = f"alpha {config.lora.alpha:g} at rank {rank} is a strength of {strength:g}; guides have alpha = rank."
        found.append(Advice("lora.alpha", "amber", text))
    usual = int(recipe.table.get("lora", {}).get("rank", rank))
    if rank > MANY_TIMES * usual:
        text = f"rank {rank} is far above the {usual} that a {recipe.file.title} takes: it overtrains sooner."
        found.append(Advice("lora.rank", "amber", text))
    return found


def _others(config: RunConfig) -> list[Advice]:
    found = []
    if config.schedule.name != "constant":
        text = (
            f"With a {config.schedule.name} rate only the last epoch is finished; a constant one lets you stop early."
        )
        found.append(Advice("schedule.name", "amber", text))
    if config.objective.guidance != 1.0:
        text = f"guidance {config.objective.guidance:g} while training: guides have 1.0; 3.5 is for drawing."
        found.append(Advice("objective.guidance", "amber", text))
    return found
