"""Which pictures look alike: near-duplicates must not stand on both sides of a split.

A picture is reduced to 16 x 16 mean colours; two whose colours differ by less than :data:`NEAR` on average are near
duplicates: another file of the same picture, another size or format of it, the next shot of a series. A crop of a
picture is not recognised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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

    for number, others in near_pairs(table, near):
        for other in others:
            parent[root(other)] = root(number)
    groups: dict[int, list[int]] = {}
    for number in range(len(looks)):
        groups.setdefault(root(number), []).append(number)
    return list(groups.values())


def near_pairs(table: NDArray[np.float32], near: float = NEAR) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """For each picture the near ones that are lighter or as light; every pair once.

    The mean difference of two pictures is at least that of their mean colours, of the whole or of parts: most pairs
    are told apart by one number or by a few, the rest by all of them.
    """
    parts = table.reshape(len(table), 4, CELLS // 4, 4, CELLS // 4, 3).mean(axis=(2, 4)).reshape(len(table), -1)
    light = table.mean(axis=1)
    order = np.argsort(light, kind="stable")
    # A little more than the limit: sums of many numbers are rounded.
    ends = np.searchsorted(light[order], light[order] + near * 1.001, side="right")
    for place, end in enumerate(ends):
        number, others = int(order[place]), order[place + 1 : end]
        others = others[np.abs(parts[others] - parts[number]).mean(axis=1) < near * 1.001]
        yield number, others[np.abs(table[others] - table[number]).mean(axis=1) < near]
