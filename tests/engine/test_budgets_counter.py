"""The counter itself: what a kernel costs, what lives at once; and the formulas of the ideal."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from engine.models.flux import FluxParams
from tests.bench.trace.contenders import SMALL, SMALL_PX, SMALL_TEXT, Case, count, fake, peft, plain
from tests.bench.trace.counter import Counter
from tests.bench.trace.ideal import (
    adapter_parameters,
    block_parameters,
    forward_flops,
    input_bytes,
    modulation_parameters,
    outer_parameters,
    step_flops,
)

FULL = Case()


def test_kernels_cost_what_they_read_and_write():
    with fake(torch.float32):
        x, w, b = torch.empty(8, 16), torch.empty(32, 16), torch.empty(32)
        with Counter() as counter:
            y = F.linear(x, w, b)
            z = y.t().contiguous()
            z.add_(1.0)
            z.copy_(y.t())
            y.view(-1)[3:]
    tally = counter.tally
    assert tally.product_flops == 2 * 8 * 16 * 32
    assert tally.product_bytes == 4 * (8 * 16 + 32 * 16 + 32 + 8 * 32)
    assert dict(tally.by_name) == {"clone": 2 * 4 * 8 * 32, "add_": 2 * 4 * 8 * 32, "copy_": 2 * 4 * 8 * 32}
    assert tally.launches == 4


def test_a_value_repeated_by_a_stride_of_zero_is_read_once():
    with fake(torch.float32):
        x, row = torch.empty(1000, 8), torch.empty(1, 8)
        with Counter() as counter:
            x * row.expand(1000, 8)
    assert counter.tally.rest_bytes == 4 * (2 * 8000 + 8)


def test_attention_forms_its_scores_again_in_backward():
    with fake():
        q, k, v = (torch.empty(1, 2, 64, 128).requires_grad_() for _ in range(3))
        with Counter() as counter:
            F.scaled_dot_product_attention(q, k, v).sum().backward()
    forward = 4 * 64 * 64 * 2 * 128
    assert counter.tally.attention_flops == 3.5 * forward


def test_memory_is_what_lives_at_once():
    with fake(torch.float32):
        x = torch.empty(1000)
        with Counter() as counter:
            for _ in range(3):
                y = x + 1
                z = y * 2
                del y
            assert counter.live == 4000 and z.numel() == 1000
            del z
    assert counter.live == 0
    assert counter.tally.peak_bytes == 12_000  # the last z lives until the next one takes its name


@pytest.mark.parametrize(
    "px, forward, none, full, attention",
    [(512, 21.5, 45.5, 59.3, 57.6), (768, 41.9, 92.2, 120.0, 114.4), (1024, 74.4, 171.1, 222.3, 207.4)],
)
def test_the_ideal_is_the_published_arithmetic(px, forward, none, full, attention):
    case = replace(FULL, px=px)
    assert sum(forward_flops(case)) / 1e12 == pytest.approx(forward, abs=0.1)
    found = [step_flops(replace(case, checkpointing=kept)) / 1e12 for kept in ("none", "full", "attention")]
    assert found == pytest.approx([none, full, attention], abs=0.1)


def test_sizes_are_those_of_the_released_model():
    double, single = block_parameters(FULL)
    assert 19 * double + 38 * single + modulation_parameters(FULL) + outer_parameters(FULL) == 11_901_408_320
    assert adapter_parameters(FULL) == 16 * 3_502_080
    assert double == 226_548_224 and single == 113_271_040
    assert input_bytes(FULL) == 28_311_552


@pytest.fixture(scope="module")
def shallow() -> Case:
    return replace(FULL, params=FluxParams(depth=1, depth_single_blocks=1))


def test_the_plain_step_computes_its_formula(shallow):
    counted = count(plain, replace(shallow, rank=1))
    linear, attention = forward_flops(shallow)
    # Checkpointed: two forward passes and the input gradients; less what no gradient reaches (the first block's qkv).
    assert counted.flops == pytest.approx(3 * linear + 4.5 * attention, rel=0.09)
    assert counted.backward.flops > 2 * counted.forward.flops > 0


def test_peers_cost_at_the_small_size_what_is_known_of_them():
    counted = count(peft, Case(params=SMALL, px=SMALL_PX, text=SMALL_TEXT))
    case = Case(params=SMALL, px=SMALL_PX, text=SMALL_TEXT)
    assert 1.10 < counted.flops / step_flops(case) < 1.20
