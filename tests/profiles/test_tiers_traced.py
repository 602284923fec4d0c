"""What the solver answers for each tier holds: the engine's own build and step, traced at full size, below the cap.

The trace does not know the forecast's formulas: it counts the tensors that the engine makes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from profiles.memory_model import CONTEXT, LOST
from profiles.schema import GIB, Fit, Machine
from profiles.tiers import SIZES_GB, TierJob, solved
from tests.bench.trace.against import Configuration
from tests.bench.trace.whole import Setup, autoencoder, drawing, peak, standing

SIDE = TierJob().resolution


@cache
def answer(vram_gb: int) -> tuple[Machine, Fit, Setup]:
    machine, fit = solved(vram_gb)
    return machine, fit, Configuration(fit.settings, SIDE, SIDE).setup()


def on_card_gb(allocated: int) -> float:
    """With what the allocator loses and CUDA's context."""
    return (allocated * (1 + LOST) + CONTEXT) / GIB


@pytest.mark.parametrize("vram_gb", SIZES_GB)
def test_the_traced_step_stays_below_the_cap(vram_gb: int) -> None:
    machine, fit, setup = answer(vram_gb)
    held = on_card_gb(peak(setup))
    assert fit.fits and held <= machine.free_vram_gb <= vram_gb
    assert held <= fit.limit_gb - 0.5 * fit.margin_gb  # half of the margin is still there
    assert held == pytest.approx(fit.forecast.stage("train").vram_gb, rel=0.04)


@pytest.mark.parametrize("vram_gb", SIZES_GB)
def test_traced_sample_pictures_stay_below_the_cap(vram_gb: int) -> None:
    """Drawn and decoded beside everything that training keeps on the card."""
    _, fit, setup = answer(vram_gb)
    weights, encoding, decoding = autoencoder(SIDE, SIDE)
    held = on_card_gb(standing(setup).total + weights + max(drawing(replace(setup, swap=0)), decoding))
    assert held <= fit.limit_gb - 0.5 * fit.margin_gb
    assert on_card_gb(weights + encoding) <= fit.limit_gb - fit.margin_gb  # caching, before the base is loaded
