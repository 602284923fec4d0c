"""Flat storage of the adapter's matrices: one buffer of weights, one of gradients, a view in both for each matrix.

A step over some hundred small matrices is a few large operations on these buffers: measure, clip, update, cast for
the next forward pass, zero. What needs matrices (products, Adafactor, an update's norm) reads them through the views.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ALIGNMENT = 256
"""Values; where a matrix may begin. 512 bytes in 16 bit, more than any product asks for, and the block in which
bitsandbytes shares a scale, so that no scale spans two matrices."""

PIECE = 2**24
"""Values of the largest parameter that an optimizer sees, a multiple of the alignment. What an optimizer does in
between with a whole parameter stays at 64 MiB, and no kernel counts in more than 31 bits."""


@dataclass(frozen=True)
class Span:
    """Where a matrix lies in the buffers, in values."""

    begin: int
    shape: tuple[int, int]

    def of(self, flat: Tensor) -> Tensor:
        """Its view in a buffer."""
        return flat[self.begin : self.begin + math.prod(self.shape)].view(self.shape)


def lay_out(shapes: Sequence[tuple[int, int]], kinds: Sequence[Hashable], begin: int = 0) -> tuple[list[Span], int]:
    """Spans for matrices, in their order, and the end of the last one.

    Matrices of one kind lie side by side at equal distances (a kind has one shape), so that they can be read as one
    tensor of three dimensions; kinds follow in the order in which they first appear.
    """
    order = {kind: rank for rank, kind in enumerate(dict.fromkeys(kinds))}
    begins = [0] * len(shapes)
    for number in sorted(range(len(shapes)), key=lambda number: order[kinds[number]]):
        begins[number] = begin
        begin += -(-math.prod(shapes[number]) // ALIGNMENT) * ALIGNMENT
    return [Span(at, shape) for at, shape in zip(begins, shapes, strict=True)], begin


class FlatStorage:
    """Weights and gradients, float32, of matrices in two regions: all downs, then all ups.

    Padding between matrices is zero in both buffers and stays zero under every optimizer.

    Args:
        downs, ups: the matrices' shapes.
        kinds: a mark for each pair; those with equal marks have equal shapes and are stacked.

    Attributes:
        weights: all weights (values,); its views are the parameters.
        gradients: all gradients (values,); every parameter's ``grad`` is a view of it and none is ever None.
        downs, ups: the matrices' parameters.
        members: numbers of the pairs in each stack.
        stacks: the matrices as parameters of three dimensions (matrices, rows, columns): downs by kind, ups by kind.
        pieces: the same values as parameters of one dimension: pieces of the first region, then of the second.
    """

    def __init__(
        self,
        downs: Sequence[tuple[int, int]],
        ups: Sequence[tuple[int, int]],
        kinds: Sequence[Hashable],
        device: torch.device,
    ) -> None:
        self._downs, middle = lay_out(downs, kinds)
        self._ups, end = lay_out(ups, kinds, middle)
        self._regions = ((0, middle), (middle, end))
        self._casts: dict[torch.dtype, tuple[Tensor, list[Tensor], list[Tensor]]] = {}
        self.members = [[n for n, own in enumerate(kinds) if own == kind] for kind in dict.fromkeys(kinds)]
        self.weights = torch.zeros(end, dtype=torch.float32, device=device)
        self.gradients = torch.zeros_like(self.weights)
        both = [
            (
                self._matrices(region, self.weights),
                self._stacked(region, self.weights),
                self._cut(region, self.weights),
            )
            for region in (0, 1)
        ]
        (self.downs, self.ups), self.stacks, self.pieces = (
            tuple([nn.Parameter(view) for view in views] for views in form) for form in zip(*both, strict=True)
        )
        self._tie()

    def _matrices(self, region: int, flat: Tensor) -> list[Tensor]:
        return [span.of(flat) for span in (self._downs, self._ups)[region]]

    def _stacked(self, region: int, flat: Tensor) -> list[Tensor]:
        spans = (self._downs, self._ups)[region]
        return [_stack([spans[number] for number in members], flat) for members in self.members]

    def _cut(self, region: int, flat: Tensor) -> list[Tensor]:
        begin, end = self._regions[region]
        return [flat[at : min(at + PIECE, end)] for at in range(begin, end, PIECE)]

    def _tie(self) -> None:
        """Point every parameter and its gradient into the buffers."""
        forms = (
            ((self.downs, self.ups), self._matrices),
            (self.stacks, self._stacked),
            (self.pieces, self._cut),
        )
        for parameters, views in forms:
            for region, own in enumerate(parameters):
                places = zip(own, views(region, self.weights), views(region, self.gradients), strict=True)
                for parameter, weights, gradients in places:
                    # Without a gradient first: torch refuses data on another device than the gradient's.
                    parameter.grad = None
                    parameter.data = weights
                    parameter.grad = gradients

    def move(self, device: torch.device) -> None:
        """Move both buffers; parameters stay the same objects, casts are made anew when next asked for."""
        # Always new memory: what is wrong with a move then shows without a GPU.
        self.weights = self.weights.to(device, copy=True)
        self.gradients = self.gradients.to(device, copy=True)
        self._casts.clear()
        self._tie()

    def cast(self, number: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Down and up of a target in ``dtype``, detached: views of one copy, or of the weights if it is theirs."""
        if dtype not in self._casts:
            # Sampling may ask first: a tensor made in inference mode could never be brought up to date.
            with torch.inference_mode(False):
                flat = self.weights.to(dtype)
                self._casts[dtype] = flat, self._matrices(0, flat), self._matrices(1, flat)
        _, downs, ups = self._casts[dtype]
        return downs[number], ups[number]

    def matrices(self, flat: Tensor) -> list[Tensor]:
        """Views of a buffer placed as the weights: down and up of each pair in turn."""
        both = zip(self._matrices(0, flat), self._matrices(1, flat), strict=True)
        return [matrix for pair in both for matrix in pair]

    def refresh(self) -> None:
        """Bring the casts up to date in place: one operation for each type in use."""
        for flat, *_ in self._casts.values():
            if flat.dtype != self.weights.dtype:
                flat.copy_(self.weights)


def _stack(spans: Sequence[Span], flat: Tensor) -> Tensor:
    rows, columns = spans[0].shape
    distance = spans[1].begin - spans[0].begin if len(spans) > 1 else rows * columns
    return flat.as_strided((len(spans), rows, columns), (distance, columns, 1), spans[0].begin)
