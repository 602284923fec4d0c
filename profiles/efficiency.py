"""How much of a card's peak rates a step reaches, and the rates of what stands around the card: one table for all.

Assumptions until a card has been measured (``python tests/gpu/first_hour.py`` measures them); every forecast of time,
and the predictions in docs/performance.md, are made with these. The 8-bit one is the least sure.
"""

from __future__ import annotations

from engine.hardware.cards import Card
from engine.hardware.rates import CardRates

LINEAR = 0.85
"""Of the bf16 peak, in products with the base's weights."""

EIGHT_BIT = 0.5
"""Of the 8-bit peak, quantising left out."""

ATTENTION = 0.65
"""Of the bf16 peak; backward and forward alike."""

BANDWIDTH = 0.92
"""Of the card's memory bandwidth, in what is no product."""

WIDE = 0.75
"""Of the float32 peak: the autoencoder's convolutions, and all products where a card has no bf16."""

PROCESSOR = 0.7
"""Of what a square product reaches on a processor; attention and small products are slower."""

LAUNCH_S = 8e-6
"""Host time of a kernel's launch."""

UPDATE_LAUNCHES = 150
"""Launches of clipping and the optimizer's step."""

DISK_READ, DISK_WRITE = 1.5e9, 0.8e9
"""Bytes a second, of a modest NVMe disk; writes are hashed and flushed."""

PAGEABLE = 0.5
"""Of the link's rate where host memory is not pinned."""

DECODE_S_PER_MEGAPIXEL, PICTURE_S = 0.0085, 0.04
"""Processor time of a picture: decoding it by its size, and scaling, hashing and writing its latents."""

START_S = 6.0
"""Importing torch and opening the card."""


def float32_tflops(rates: CardRates) -> float:
    """Peak of float32 without TF32: the card's own where the table has it, else taken from its tensor rates.

    GeForce cards have half of their bf16 rate (their bf16 accumulates in float32 at half speed), workstation and
    inference cards a quarter, A100, H100 and H200 a fifteenth; told apart by int8's rate and the bandwidth.
    """
    if rates.float32 or not rates.bf16:
        return rates.float32
    if rates.int8 >= 3.5 * rates.bf16:
        return rates.bf16 / 2
    return rates.bf16 / (15 if rates.bandwidth >= 1500 else 4)


def processor_tflops(cores: int) -> float:
    """A processor's float32 rate: some 50 GFLOP/s a core with AVX2. An assumption."""
    return 0.05 * max(cores, 1)


def linear_tflops(card: Card | None, kind: str, wide: int, cores: int) -> float:
    """What products with the base reach; ``kind`` as :func:`profiles.products.kind_of` says."""
    if card is None:
        return PROCESSOR * processor_tflops(cores)
    rates = card.rates
    if kind == "int8":
        return EIGHT_BIT * rates.int8
    if kind == "fp8":
        return EIGHT_BIT * rates.fp8
    return wide_tflops(rates, wide, LINEAR)


def attention_tflops(card: Card | None, wide: int, cores: int) -> float:
    """What attention reaches."""
    if card is None:
        return PROCESSOR * processor_tflops(cores)
    return wide_tflops(card.rates, wide, ATTENTION)


def wide_tflops(rates: CardRates, wide: int, share: float) -> float:
    """``share`` of the bf16 peak, or of float32's where values take four bytes or the card has no bf16 units."""
    return share * rates.bf16 if wide == 2 and rates.bf16 else WIDE * float32_tflops(rates)
