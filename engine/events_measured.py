"""What a run measures to find its best epoch, and what it advises: a part of :mod:`engine.events`."""

from __future__ import annotations

import math
from dataclasses import dataclass

BANDS = ("low noise", "middle", "high noise")
"""Noise levels below 0.3, below 0.6 and above, in the order of every ``*_bands``."""

BAND_ENDS = (0.3, 0.6)


@dataclass(frozen=True)
class Measured:
    """Fixed-noise losses and what else tells how far a LoRA has come, after ``step`` steps.

    Losses are means of the squared error of the predicted velocity over the same pictures, noise and noise levels
    each time: lower is better. What was not measured is empty or 0.

    Attributes:
        held_out: loss on held-out pictures by noise seed; empty where there are none.
        held_out_bands: the same by :data:`BANDS`, over all seeds.
        held_out_pictures: the same by picture: what one picture says and another does not is no finding.
        train: loss on a fixed part of the training pictures, as ``held_out``.
        train_bands: by band.
        drift: squared distance between the model's predictions with and without the LoRA on prompts without the
            trigger, as a share of the prediction's own square; None where it was not measured.
        update: what the LoRA adds to the weights: its Frobenius norm by kind of layer.
        seconds: what it took.
    """

    step: int
    epoch: int
    held_out: tuple[float, ...] = ()
    held_out_bands: tuple[float, ...] = ()
    held_out_pictures: tuple[float, ...] = ()
    train: tuple[float, ...] = ()
    train_bands: tuple[float, ...] = ()
    drift: float | None = None
    update: tuple[tuple[str, float], ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class PictureLosses:
    """How the training pictures do after ``step`` steps, one figure for each of ``names`` (paths, as they are).

    Many pictures are told in several events, so that no line of the file grows beyond what a reader looks back.

    Attributes:
        kind: "steps", from the training steps: losses as shares of what is usual at their noise levels; or "fixed",
            from a pass with the same noise for all: mean squared errors of the predicted velocity.
        losses: by picture; of "fixed" with the picture's own caption.
        others: of "fixed" the same with other pictures' captions, 0 where there is no other caption; else empty.
        base: of "fixed" the share own / others without the LoRA, 0 likewise; else empty.
        counts: of "steps" how often each was seen; else empty.
    """

    step: int
    epoch: int
    kind: str
    names: tuple[str, ...]
    losses: tuple[float, ...]
    others: tuple[float, ...] = ()
    base: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()

    @property
    def figures(self) -> dict[str, float]:
        """How badly each picture does, by its path: about 1 is as usual, more is worse.

        Of "fixed" the loss with the own caption as a share of that with others', with the LoRA or without it,
        whichever is larger; where nobody has another caption, as a share of all pictures' mean.
        """
        if self.kind != "fixed":
            return dict(zip(self.names, self.losses, strict=False))
        usual = math.fsum(self.losses) / max(len(self.losses), 1)
        told = zip(self.names, self.losses, self.others, self.base, strict=False)
        return {name: max(loss / ((other if other > 0 else usual) or 1.0), base) for name, loss, other, base in told}


@dataclass(frozen=True)
class Advised:
    """What the advisor says after a measurement; told when it changes.

    Attributes:
        verdict: "under", "in range", "over" or "unclear", of the newest measurement.
        first, last: epochs of the recommended range; 0 while there is none.
        best: the recommended epoch in it; 0 while there is none.
        text: the verdict in words.
        over: whether the best epochs are over, so that training on only harms.
    """

    step: int
    epoch: int
    verdict: str
    first: int
    last: int
    best: int
    text: str
    over: bool = False

    @property
    def level(self) -> str:
        """How urgent it is in a log."""
        return "warning" if self.over else "info"
