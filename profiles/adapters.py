"""What is trained: an adapter's values and what an optimizer keeps for each, and takes for a moment at its update.

Weights and gradients are float32; where the base computes in 16 bits there is a copy to compute with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from profiles.sizes import FluxSize, lora_values

PIECE = 2**24
"""Values that most optimizers update at a time (:data:`engine.lora.flat.PIECE`)."""


@dataclass(frozen=True)
class OptimizerBytes:
    """Bytes of an optimizer.

    Attributes:
        state: for each trained value.
        scales: for each value beside it, where states are kept in 8 bits.
        downs: more for each value of a down matrix.
        piece: for each value of the piece that is being updated, for a moment.
        whole: for each value, for a moment.
        paged: the driver moves the state between card and host as room allows; scales stay.
    """

    state: float
    scales: float = 0.0
    downs: float = 0.0
    piece: float = 0.0
    whole: float = 0.0
    paged: bool = False


_SCALE = 4 / 256
"""One float32 for 256 values."""

OPTIMIZERS = {
    "adamw": OptimizerBytes(8),
    "adamw8bit": OptimizerBytes(2, 2 * _SCALE, piece=6 + 2 * _SCALE),
    "paged_adamw": OptimizerBytes(8, paged=True),
    "paged_adamw8bit": OptimizerBytes(2, 2 * _SCALE, paged=True),
    "lion": OptimizerBytes(4, piece=16),
    "lion8bit": OptimizerBytes(1, _SCALE, piece=5 + _SCALE),
    "paged_lion8bit": OptimizerBytes(1, _SCALE, paged=True),
    "prodigy": OptimizerBytes(12, downs=4, piece=12),
    "adamw_schedulefree": OptimizerBytes(8, whole=16),
    "adafactor": OptimizerBytes(0),
}
"""By ``optimizer.name``; a test holds each against the optimizer itself."""


@dataclass(frozen=True)
class Trained:
    """Bytes of an adapter and its optimizer.

    Attributes:
        values: trained values.
        adapter: weights, gradients and the copy to compute with.
        optimizer: states on the card.
        paged: states that the driver keeps in host memory.
        update: for a moment, at each step's end.
    """

    values: int
    adapter: int
    optimizer: int
    paged: int
    update: int

    @property
    def state(self) -> int:
        """What a training state holds: weights in float32 and all of the optimizer's."""
        return 4 * self.values + self.optimizer + self.paged


@lru_cache(maxsize=1024)
def trained(size: FluxSize, rank: int, targets: str, optimizer: str, wide: int = 2) -> Trained:
    """An adapter of this rank on these targets."""
    values = lora_values(size, rank, targets)
    adapter = values * (8 + (wide if wide < 4 else 0))
    norms = values // 64  # of rows of 256 gradients, for clipping
    if optimizer == "adafactor":
        return _adafactor(size, rank, targets, values, adapter)
    needs = OPTIMIZERS[optimizer]
    state, scales = int(values * needs.state), int(values * needs.scales)
    downs = sum(rank * inputs * count for inputs, _, count in size.adapted(targets))
    piece = min(max(downs, values - downs), PIECE)
    state += int(needs.downs * downs)
    update = max(norms, int(piece * needs.piece + values * needs.whole))
    if needs.paged:
        return Trained(values, adapter, scales, state, norms)
    return Trained(values, adapter, state + scales, 0, update)


def _adafactor(size: FluxSize, rank: int, targets: str, values: int, adapter: int) -> Trained:
    """A row and a column of each matrix; stacks of equal matrices are updated at once."""
    linears = size.adapted(targets)
    state = 4 * sum(count * (inputs + outputs + 2 * rank) for inputs, outputs, count in linears)
    stack = max(count * rank * max(inputs, outputs) for inputs, outputs, count in linears)
    return Trained(values, adapter, state, 0, 13 * stack)
