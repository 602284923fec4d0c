"""Every training picture under the same noise, with its own caption and with those of others: a pass on request.

A picture's plain loss says how hard it is to draw: a crowd costs more than a face on a grey wall, whatever their
captions say. So each picture is asked with its own caption and with some of the other pictures', at the same noise
and noise levels, and own / others is looked at: below 1 the caption helps to draw the picture, near 1 it says nothing
that the others do not, above 1 it describes something else. It is asked with the LoRA and without it, and the larger
share is the picture's *misfit*: the base knows the common words and learns no wrong caption by heart, the LoRA knows
its own. Noise and levels are functions of the run's seed; nothing of the training is touched
(:mod:`engine.training.validation`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engine.batches import Order
from engine.cache.latents import View
from engine.dataset.scan import Sample
from engine.draws import python_random
from engine.events import Event, EventLog, Log, PictureLosses, Progress
from engine.text import safe_text
from engine.training.measured_pictures import view_of
from engine.training.step_losses import parts
from engine.training.validation import Known, Probe, Subject, loss_of, picture_probes, predict, silenced

SIGMAS = (0.65, 0.85)
"""Noise levels: high, where the picture does not settle yet what the caption says."""

OTHERS = 3
"""Captions of other pictures that each picture is asked with."""

TOGETHER = 192
"""Questions that are held in memory at a time."""


@dataclass(frozen=True)
class Asked:
    """One picture and how it is seen: its caption, and those of others that say something else."""

    sample: Sample
    view: View
    caption: str
    others: tuple[str, ...]


def pictures_of(order: Order, views: dict[View, str], epoch: int, seed: int) -> list[Asked]:
    """The training pictures as ``epoch`` sees them, in the order of their scan; regularization pictures left out.

    Args:
        views: what the cache holds latents of.
        seed: the run's; draws whose captions a picture is asked with, the same ones each time.
    """
    seen: dict[int, tuple[Sample, View, str]] = {}
    for micro in (micro for step in order.epoch_steps(epoch) for micro in step):
        for item in micro.items:
            sample = item.view.sample
            known = seen.get(sample.index)
            if not sample.regularization and (known is None or not known[2]):  # not the one that was dropped
                seen[sample.index] = sample, item.view, item.caption
    captions = [caption for _, _, caption in seen.values()]
    asked = []
    for index, (sample, view, caption) in sorted(seen.items()):
        centred = view_of(sample, order.config.dataset)
        others = sorted({other for other in captions if other != caption})
        chosen = python_random(seed, "other captions", index).sample(others, min(OTHERS, len(others)))
        asked.append(Asked(sample, centred if centred in views else view, caption, tuple(chosen)))
    return asked


@dataclass(frozen=True)
class Fit:
    """A picture's losses with its own caption and, on average, with others' (0 where there are none)."""

    own: float
    others: float

    @property
    def share(self) -> float:
        """Own / others; 0 where there are none."""
        return self.own / self.others if self.others > 0 else 0.0


def measure_pictures(
    subject: Subject, asked: Sequence[Asked], events: EventLog, should_stop: Callable[[], bool]
) -> list[tuple[Fit, Fit]]:
    """How the captions fit with the LoRA and without it, by picture; fewer than ``asked`` if stopped."""
    found: list[tuple[Fit, Fit]] = []
    at_once = max(1, TOGETHER // (len(SIGMAS) * (1 + OTHERS)))
    for first in range(0, len(asked), at_once):
        if should_stop():
            break
        events.append(Progress("measure pictures", first, len(asked)))
        some = asked[first : first + at_once]
        questions = [_probes(subject, one) for one in some]
        trained = _fits(subject, questions)
        with silenced(subject.lora):
            found += zip(trained, _fits(subject, questions), strict=True)
    events.append(Progress("measure pictures", len(found), len(asked)))
    return found


def figures_told(step: int, epoch: int, asked: Sequence[Asked], found: Sequence[tuple[Fit, Fit]]) -> list[Event]:
    """The events that tell of what was ``found``, of the first or of all pictures, the last of them in words."""
    fits = {str(one.sample.path): fit for one, fit in zip(asked, found, strict=False)}
    events: list[PictureLosses] = []
    for names in parts(list(fits)):
        own, others, base = (
            tuple(round(figure, 6) for figure in column)
            for column in zip(
                *((lora.own, lora.others, base.share) for lora, base in map(fits.__getitem__, names)), strict=True
            )
        )
        events.append(PictureLosses(step, epoch, "fixed", names, own, others, base))
    shares = {name: share for event in events for name, share in event.figures.items()}
    worst = sorted(shares, key=lambda name: (-shares[name], name))[:3]
    listed = ", ".join(f"{os.path.basename(name)} {shares[name]:.2f}" for name in worst)
    text = f"{len(shares)} pictures measured at step {step}; their captions fit least (1: as others' do): {listed}"
    return [*events, Log("info", safe_text(text, 1000))]


def _fits(subject: Subject, questions: Sequence[Sequence[Probe]]) -> list[Fit]:
    """The model as it stands, asked all of it: of each picture first its own caption's questions."""
    answers = iter(predict(subject, [probe for probes in questions for probe in probes]))
    fits = []
    for probes in questions:
        losses = [loss_of(next(answers), probe) for probe in probes]
        own, others = losses[: len(SIGMAS)], losses[len(SIGMAS) :]
        fits.append(Fit(sum(own) / len(own), sum(others) / max(len(others), 1)))
    return fits


def _probes(subject: Subject, asked: Asked) -> list[Probe]:
    """With the own caption at every level, then with each of the others."""
    latents, seed = subject.entries.mean_latents(asked.view), subject.config.seed
    texts = [subject.entries.batch_text([caption]) for caption in (asked.caption, *asked.others)]
    known = Known("every picture", latents, texts[0], subject.entries.mask(asked.view))  # one name, one noise
    [own] = picture_probes(known, SIGMAS, 1, seed)
    return [replace(probe, text=text) for text in texts for probe in own]
