"""How fast a card multiplies and reads at most, by its name; where it is not known, a product is timed.

The figures stand in :mod:`engine.hardware.card_table`, with their sources. Torch is imported by
:func:`measured_tflops` alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from engine.hardware.card_table import Sheet, sheet_of


@dataclass(frozen=True)
class CardRates:
    """Peak rates of a card: TFLOP/s (int8: TOP/s) and GB/s; 0 where it has no units for it.

    Attributes:
        bf16: 0 on Turing: what would be bf16 is computed in float32 there.
        fp8: with float32 accumulation, without block scales.
        float32: of ordinary units, not in the rounded format "TF32".
    """

    bf16: float
    int8: float
    fp8: float
    bandwidth: float
    float32: float = 0.0

    @property
    def wide(self) -> float:
        """Of products that are not in 8 bit, in the format that the card computes them in."""
        return self.bf16 or self.float32


def rates_in(sheet: Sheet) -> CardRates:
    """The rates of a published sheet."""
    return CardRates(sheet.bf16, sheet.int8, sheet.fp8, sheet.bandwidth, sheet.float32)


def rates_of(name: str, vram_gb: float = 0.0) -> CardRates | None:
    """The card's rates by the name its driver gives, whole: a laptop's card of the same number is another card.

    Args:
        vram_gb: its memory, which tells two cards of one name apart.
    """
    sheet = sheet_of(name, vram_gb)
    return None if sheet is None else rates_in(sheet)


def measured_tflops(device: str, dtype: str, size: int = 0, repeats: int = 5) -> float:
    """The best of some square products, in TFLOP/s: what stands in where no rate is published.

    Args:
        device: cpu, cuda or cuda:N.
        dtype: float32 or bfloat16.
        size: rows and columns; 0 takes what keeps the device busy long enough to be timed.
    """
    import torch

    on_gpu = device.startswith("cuda")
    size = size or (8192 if on_gpu else 1024)
    # Random numbers: a GPU multiplies zeros faster than it multiplies anything else.
    factors = [torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2)]
    best = float("inf")
    for _ in range(repeats + 1):
        if on_gpu:
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        _ = factors[0] @ factors[1]
        if on_gpu:
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best / 1e12
