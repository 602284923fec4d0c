"""Measures a model as a run's plan says: the same pictures, noise and prompts each time, whoever holds the model.

A run measures its adapter in training with it, and a LoRA file is measured with it afterwards; the figures compare.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from engine.config import RunConfig
from engine.dataset.scan import Sample
from engine.events import Measured
from engine.training.measured_pictures import MeasuredPictures, caption_of, view_of
from engine.training.validation import Drift, Known, Subject, measure_loss, update_sizes


class Gauge:
    """One run's measure.

    Args:
        config: the run's.
        chosen: what is measured, and on what.
    """

    def __init__(self, config: RunConfig, chosen: MeasuredPictures) -> None:
        self.config = config
        self.chosen = chosen
        # Taken once: a picture that is edited or removed while the run goes on is measured as it was.
        self._names = {sample.path: sample.content_hash for sample in (*chosen.held_out, *chosen.train)}
        self._drift: Drift | None = None

    def measure(self, subject: Subject, step: int, epoch: int) -> Measured:
        """Measure ``subject`` as it stands, which is called what ``step`` steps and ``epoch`` made of it."""
        began, plan, seed = time.monotonic(), self.chosen.plan, self.config.seed
        held, train = (self.known(subject, samples) for samples in (self.chosen.held_out, self.chosen.train))
        held_loss = measure_loss(subject, held, plan.sigmas, plan.seeds, seed)
        train_loss = measure_loss(subject, train, plan.sigmas, 1, seed)
        return Measured(
            step=step,
            epoch=epoch,
            held_out=held_loss.by_seed,
            held_out_bands=held_loss.by_band,
            held_out_pictures=held_loss.by_picture,
            train=train_loss.by_seed,
            train_bands=train_loss.by_band,
            drift=self._drift_of(subject, held or train),
            update=update_sizes(subject.lora),
            seconds=round(time.monotonic() - began, 3),
        )

    def known(self, subject: Subject, samples: Sequence[Sample]) -> list[Known]:
        """Pictures as they are measured, read from the cache."""
        known = []
        for sample in samples:
            view = view_of(sample, self.config.dataset)
            latents, mask = subject.entries.mean_latents(view), subject.entries.mask(view)
            text = subject.entries.batch_text([caption_of(sample, self.config)])
            known.append(Known(self._names[sample.path], latents, text, mask))
        return known

    def _drift_of(self, subject: Subject, known: list[Known]) -> float | None:
        if not self.chosen.prompts or not known:
            return None
        if self._drift is None:
            texts = [subject.entries.batch_text([prompt]) for prompt in self.chosen.prompts]
            self._drift = Drift(texts, tuple(known[0].latents.shape), self.config.seed)
        return self._drift.measure(subject)
