"""Who else is told of a run: the [tracking] table. Nothing is imported, nothing sent, unless it is asked for here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from engine.config_part import Part


class TrackingConfig(Part):
    """Trackers that show the run's numbers and sample pictures in a browser."""

    tensorboard: bool = False
    """Write logs for TensorBoard; needs `pip install "lorakiln[tensorboard]"`."""
    wandb: Annotated[str, Field(max_length=128, pattern=r"^[^/\\#?%:\x00-\x1f]*$")] = ""
    """Project at Weights & Biases that numbers, settings and sample pictures are sent to; empty sends nothing. Needs
    `pip install "lorakiln[wandb]"` and `wandb login`; with WANDB_MODE=offline it is kept in the run's folder."""
    folder: Path | None = None
    """Where TensorBoard's logs of all runs go, each in a folder of the run's name; unset: in the run's own folder."""
