"""Step times that the counts of a contender let one expect, at the forecast's efficiencies.

    time = linears / their rate + attention / its rate + bytes outside products / (share of the bandwidth)

Host time is left out, so an eager step below some 0.4 s is bound by it instead.
"""

from __future__ import annotations

from engine.hardware.cards import Card
from engine.hardware.rates import rates_of
from profiles.efficiency import BANDWIDTH, attention_tflops, linear_tflops
from tests.bench.trace.contenders import Counted

CARDS = ("H200", "RTX 5090", "RTX 4090", "RTX 3090", "RTX 4060 Ti", "RTX 3060", "RTX 4060")

TERA = 1e12


def seconds(counted: Counted, card: str, eight_bit: bool = False) -> float:
    """The expected step time of ``counted`` on ``card``; ``eight_bit`` multiplies linears in int8."""
    rates = rates_of(card)
    assert rates is not None
    kind = Card(card, 0.0, (8, 0), rates, 0.0)
    linear = counted.forward.product_flops + counted.backward.product_flops
    attention = counted.forward.attention_flops + counted.backward.attention_flops
    return (
        linear / (linear_tflops(kind, "int8" if eight_bit else "dense", 2, 1) * TERA)
        + attention / (attention_tflops(kind, 2, 1) * TERA)
        + counted.rest_gb / (BANDWIDTH * rates.bandwidth)
    )
