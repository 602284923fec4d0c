"""How a run looks for its best epoch: the [validation] table, what is measured, and [stop], what follows from it.

None of it changes what is trained: a run that measures ends with the same weights as one that does not, held-out
pictures apart, which neither of them may see.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from engine.config_part import Count, CountOrZero, Fraction, Part

CANDIDATES = 4
"""Newest files that stay of epochs which are measured and not saved by the cadence, the recommended ones apart: on
every recorded run a good epoch was then on the disk when the best ones were over (docs/sweet-spot.md)."""

Level = Annotated[float, Field(gt=0.0, lt=1.0)]


class ValidationConfig(Part):
    """What is measured while training, to tell when the LoRA is under-, well and over-trained."""

    held_out: Literal["auto"] | CountOrZero = "auto"
    """Pictures of the dataset set aside, never trained on; auto takes a fifth (3 to 8) from 12 pictures on, and
    none of fewer. Near-duplicates stay on one side. Which ones depends on the pictures alone."""
    folder: Path | None = None
    """A folder of held-out pictures with captions of its own; then none are set aside."""
    every_epochs: Literal["auto"] | CountOrZero = 0
    """Measure at the end of every so many epochs; auto keeps within ``budget``, 0 measures never, and sets no
    pictures aside."""
    every_steps: CountOrZero = 0
    """Measure in between as well."""
    budget: Annotated[float, Field(gt=0.0, le=100.0)] = 0.05
    """Most of the training's computing that measuring may take on top, as a share of it."""
    sigmas: tuple[Level, ...] = ()
    """Noise levels; empty chooses three to five, more of them where over-fitting shows first (low noise)."""
    prompts: tuple[str, ...] = ()
    """Ordinary prompts without the trigger: how far the LoRA moves the model on them is its drift. Empty takes
    captions of regularization pictures, or plain ones of our own."""


class StopConfig(Part):
    """Whether a run ends by itself once its best epochs are over."""

    mode: Literal["off", "advise", "stop"] = "advise"
    """off says nothing; advise says it in the log and on the screen; stop saves and stops."""
    patience: Count = 3
    """What it takes until the best epochs count as over: at least so many measurements after the best, and more of
    them the less they are worse; twice as much where fewer than six pictures are held out."""
    min_epochs: CountOrZero = 0
    """Never before this epoch."""
    worse_by: Fraction = 0.0
    """From where on a measurement counts as worse, as a share of what was gained; 0 takes a quarter."""
