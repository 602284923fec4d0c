"""Budgets of a block at FLUX.1-dev's full size and of a step at the small one, counted on fake tensors."""

from dataclasses import replace

import pytest

from tests.bench.trace.contenders import SMALL, SMALL_PX, SMALL_TEXT, Case, count, count_block, lean
from tests.bench.trace.ideal import step_flops


@pytest.mark.parametrize("kept", ["full", pytest.param("attention", marks=pytest.mark.slow), "none"])
def test_the_same_at_the_small_size(kept):
    case = Case(params=SMALL, px=SMALL_PX, text=SMALL_TEXT, checkpointing=kept)
    # Target: 1.05.
    assert count(lean, case).flops / step_flops(case) <= 1.05


@pytest.mark.parametrize("kind", ["double", "single"])
def test_a_block_keeps_little_when_nothing_is_recomputed(kind):
    kept = count_block(lean, replace(Case(), checkpointing="none"), kind).kept_bytes
    # Target: 400 MiB.
    assert kept <= 400 * 2**20
