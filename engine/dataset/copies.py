"""Whether a picture is a copy of one that was trained on: told from small pictures alone, without any model.

Two pictures are compared by how well their structure agrees: 64 x 64 px, each colour's mean taken out, the coarsest
and the finest of it weighted down, then the best correlation over small shifts and with one of them mirrored. A
copy that is a little lighter, paler, moved or mirrored agrees nearly wholly; another picture of the same subject
does not. How near is too near follows from the training pictures themselves: where they are much alike, as shots of
one series are, pictures drawn by a LoRA may be so too. A crop, or a turned copy, is not recognised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 64
"""Pixels; of what is not square the middle is compared."""

MOVED = 6
"""How far, in these pixels, a copy may have moved: a tenth of the picture."""

SHARE, FEW = 0.3, 0.1
"""A copy is nearer than this share of what all but a few of the training pictures keep from the nearest other one; of
the few, some may be the same picture twice ..."""

NEAREST, FARTHEST = 0.004, 0.25
"""... and always at the first distance, where nothing is left to tell two pictures apart, never beyond the second:
pictures that have nothing in common say little of how near two of a kind may come."""

JUDGED = 128
"""Pictures whose distances from each other are measured at most: their pairs grow with the square."""

FLAT = 2.0
"""Contrast, of 255, below which a picture has no structure to copy."""

Spectrum = NDArray[np.complex64]


@dataclass(frozen=True)
class Near:
    """The training picture nearest to another one: its number, how far (0 the same, 1 nothing in common), and
    whether that is so near that it is a copy."""

    number: int
    distance: float
    copied: bool


class CopyAlarm:
    """Knows the pictures that were trained on, and tells copies of them.

    Args:
        pictures: each (h, w, 3) uint8, at least 64 px wide and high where that can be had.

    Attributes:
        limit: the distance below which a picture is a copy.
    """

    def __init__(self, pictures: Sequence[NDArray[np.uint8]]) -> None:
        spectra = [spectrum_of(picture) for picture in pictures]
        self._numbers = [number for number, one in enumerate(spectra) if one is not None]
        kept = [one for one in spectra if one is not None]
        self._spectra = np.stack(kept) if kept else np.zeros((0, 3, SIDE, SIDE // 2 + 1), np.complex64)
        self.limit = self._limit()

    def nearest(self, picture: NDArray[np.uint8]) -> Near | None:
        """The training picture nearest to ``picture``; None where one of them has no structure."""
        spectrum = spectrum_of(picture)
        if spectrum is None or not len(self._spectra):
            return None
        found = distances(spectrum, self._spectra)
        place = int(found.argmin())
        distance = float(found[place])
        return Near(self._numbers[place], distance, distance < self.limit)

    def _limit(self) -> float:
        step = max(1, -(-len(self._spectra) // JUDGED))
        judged = self._spectra[::step]
        if len(judged) < 2:
            return NEAREST
        nearest = []
        for number, spectrum in enumerate(judged):
            found = distances(spectrum, judged)
            found[number] = np.inf
            nearest.append(float(found.min()))
        return float(np.clip(SHARE * np.quantile(nearest, FEW), NEAREST, FARTHEST))


def spectrum_of(picture: NDArray[np.uint8]) -> Spectrum | None:
    """What of a picture is compared: the spectrum of its colours (3, SIDE, SIDE / 2 + 1), length 1; None if flat."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = Image.fromarray(np.ascontiguousarray(picture[top : top + side, left : left + side]))
    cells = np.asarray(middle.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    cells = cells - cells.mean(axis=(0, 1))
    if float(cells.std()) < FLAT:
        return None
    spectrum = np.fft.rfft2((cells * _window()[..., None]).transpose(2, 0, 1)) * _weight()
    length = float(np.sqrt((_both_halves(spectrum.real**2 + spectrum.imag**2)).sum()))
    return (spectrum / max(length, 1e-12)).astype(np.complex64)


def distances(spectrum: Spectrum, others: NDArray[np.complex64]) -> NDArray[np.float64]:
    """1 less the best correlation with each of ``others`` (n, 3, ...), over small shifts, mirrored or not."""
    best = np.full(len(others), -1.0)
    for own in (spectrum, _mirrored(spectrum)):
        # Parseval: all shifts at once, the colours summed before the way back.
        by_shift = np.fft.irfft2((others * own.conj()).sum(axis=1), s=(SIDE, SIDE)) * (SIDE * SIDE)
        rows = np.concatenate([by_shift[:, : MOVED + 1], by_shift[:, -MOVED:]], axis=1)
        near = np.concatenate([rows[:, :, : MOVED + 1], rows[:, :, -MOVED:]], axis=2)
        best = np.maximum(best, near.max(axis=(1, 2)))
    result: NDArray[np.float64] = np.maximum(1.0 - best, 0.0)
    return result


def _mirrored(spectrum: Spectrum) -> Spectrum:
    """The spectrum of the picture mirrored left to right: of a real picture, that of upside down, conjugated."""
    rows = (-np.arange(SIDE)) % SIDE
    return spectrum[:, rows].conj()


def _window() -> NDArray[np.float32]:
    """Fades a picture out towards its edges, which would else count as structure."""
    fade = np.minimum(1.0, np.minimum(np.arange(SIDE) + 0.5, SIDE - 0.5 - np.arange(SIDE)) / 6)
    return np.outer(fade, fade).astype(np.float32)


def _weight() -> NDArray[np.float32]:
    """Less of what all pictures share (a light sky, a dark ground), and of what a copy loses (its finest lines)."""
    down = np.fft.fftfreq(SIDE)[:, None] * SIDE
    right = np.fft.rfftfreq(SIDE)[None] * SIDE
    cycles = np.hypot(down, right)
    return (np.sqrt(cycles) * np.exp(-((cycles / 16) ** 2))).astype(np.float32)


def _both_halves(half: NDArray[np.floating]) -> NDArray[np.floating]:
    """Values of a half spectrum counted for the other half too."""
    counted = np.full(half.shape[-1], 2.0)
    counted[0] = counted[-1] = 1.0
    return half * counted
