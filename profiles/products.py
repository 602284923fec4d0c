"""How products with the frozen base are computed on a card, and what each takes besides its factors and result.

The engine's choice (:func:`engine.memory.products8.choose`) in the forecast's words; a test keeps the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.hardware.cards import Card

PIECE = 2**24
"""Values that fp8 is quantised from at a time, as float32 (:mod:`engine.memory.products8`)."""


def has_bf16(card: Card | None) -> bool:
    """Whether a run computes in bfloat16 by itself: cards since Ampere do."""
    return card is not None and card.capability >= (8, 0)


def wide_bytes(precision: str, card: Card | None) -> int:
    """Bytes of a value that the base computes in."""
    return 2 if precision != "float32" and has_bf16(card) else 4


def kind_of(precision: str, compute: str, card: Card | None) -> str:
    """dense, int8, fp8, unpacked (8-bit codes widened for each product) or nf4."""
    if precision not in ("int8", "fp8"):
        return "nf4" if precision == "nf4" else "dense"
    if compute == "wide" or card is None:
        return "unpacked"
    needed = (7, 5) if precision == "int8" else (8, 9)
    slow = precision == "int8" and card.capability[0] in (10, 11)
    return "unpacked" if card.capability < needed or slow else precision


@dataclass(frozen=True)
class Product:
    """What a product of a ``kind`` has alive besides activation and result; widened values take ``wide`` bytes."""

    kind: str
    wide: int = 2

    def forward(self, tokens: int, inputs: int, outputs: int) -> int:
        """Bytes besides for ``x @ W.T``."""
        return self._besides(tokens, inputs, inputs * outputs, scaled=0)

    def backward(self, tokens: int, inputs: int, outputs: int) -> int:
        """Bytes besides for ``grad @ W``."""
        return self._besides(tokens, outputs, inputs * outputs, scaled=tokens * outputs * self.wide)

    def _besides(self, tokens: int, columns: int, weights: int, scaled: int) -> int:
        if self.kind == "int8":
            return tokens * (columns + 4)
        if self.kind == "fp8":
            return tokens * (columns + 4) + (weights if scaled else 0)
        if self.kind == "nf4":
            return weights * self.wide + weights // 64 * 5
        return weights * self.wide + scaled if self.kind == "unpacked" else 0
