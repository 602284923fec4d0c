"""Which pictures look alike: near-duplicates must not stand on both sides of a split.

A picture is reduced to 16 x 16 mean colours; two whose colours differ by less than :data:`NEAR` on average are near
duplicates: another file of the same picture, another size or format of it, the next shot of a series. A crop of a
picture is not recognised.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CELLS = 16
NEAR = 8.0
"""Mean absolute difference of colour values, 0 to 255."""

Look = NDArray[np.float32]


def look_of(pixels: NDArray[np.uint8]) -> Look:
    """Mean colours of a picture (h, w, 3) uint8 in a grid: (CELLS * CELLS * 3,) float32, 0 to 255."""
    rows = np.array_split(np.arange(pixels.shape[0]), min(CELLS, pixels.shape[0]))
    columns = np.array_split(np.arange(pixels.shape[1]), min(CELLS, pixels.shape[1]))
    # Sums along each axis in turn; a picture smaller than the grid repeats its own pixels.
    by_row = np.stack([pixels[own].mean(axis=0, dtype=np.float32) for own in rows])
    cells = np.stack([by_row[:, own].mean(axis=1, dtype=np.float32) for own in columns], axis=1)
    down = np.linspace(0, cells.shape[0] - 1, CELLS).round().astype(int)
    right = np.linspace(0, cells.shape[1] - 1, CELLS).round().astype(int)
    return np.ascontiguousarray(cells[down][:, right].reshape(-1), dtype=np.float32)


def alike(looks: Sequence[Look], near: float = NEAR) -> list[list[int]]:
    """Groups of pictures, by their numbers: those joined by near-duplicates are together, in ascending order."""
    if not looks:
        return []
    table = np.stack(looks)
    parent = list(range(len(looks)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for number in range(len(looks) - 1):
        distances = np.abs(table[number + 1 :] - table[number]).mean(axis=1)
        for other in np.flatnonzero(distances < near):
            parent[root(number + 1 + int(other))] = root(number)
    groups: dict[int, list[int]] = {}
    for number in range(len(looks)):
        groups.setdefault(root(number), []).append(number)
    return list(groups.values())
