"""Streaming blocks' weights: the right bits at the right time, whatever is used in whatever order."""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress

import pytest
import torch
import torch._dynamo.config
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_doubles import LateCopier, RecordingCopier, host_block, small_block
from torch import nn

from engine.memory.copier import DirectCopier, copier_for
from engine.memory.frozen import Dense, block_tensors
from engine.memory.pinned import HostPool, layout_of, pack_into
from engine.memory.placement import Placement, plan_blocks
from engine.memory.plan import make_plan
from engine.memory.streaming import Streamer

BLOCKS = 9
CPU = torch.device("cpu")


def toy(dtypes=(torch.float32,), count=BLOCKS):
    return [small_block(n, dim=8 if n < count // 3 else 4, dtype=dtypes[n % len(dtypes)]) for n in range(count)]


def streamer_over(blocks, swap, copier=None, slots=2, **options):
    pool = HostPool(free_bytes=2**40)
    plan = make_plan([layout_of(block).nbytes for block in blocks], swap, slots=slots)
    placed = [host_block(pool, block) if n in plan.streamed else block for n, block in enumerate(blocks)]
    return Streamer(placed, plan, copier or LateCopier(), CPU, **options)


def same(found, wanted):
    ours, theirs = block_tensors(found), block_tensors(wanted)
    return ours.keys() == theirs.keys() and all(
        torch.equal(bits(ours[name]), bits(theirs[name])) and ours[name].stride() == theirs[name].stride()
        for name in ours
    )


def bits(tensor):
    return tensor.reshape(-1).contiguous().view(torch.uint8)


def go(streamer, blocks, order):
    for block in order:
        with streamer.use(block) as weights:
            assert same(weights, blocks[block]), block


STEP = [*range(BLOCKS), *reversed(range(BLOCKS))]


@pytest.mark.parametrize("slots", [1, 2, 3, 4])
@pytest.mark.parametrize("swap", range(BLOCKS + 1))
def test_every_use_sees_its_blocks_bits(swap, slots):
    blocks = toy()
    streamer = streamer_over(blocks, swap, slots=slots)
    go(streamer, blocks, STEP * 3 + list(range(BLOCKS)) * 2 + STEP * 2)


@pytest.mark.parametrize("swap", range(BLOCKS + 1))
def test_bytes_over_the_link_are_the_plans_and_nothing_goes_back(swap):
    blocks = toy()
    copier = RecordingCopier(LateCopier())
    streamer = streamer_over(blocks, swap, copier)
    go(streamer, blocks, STEP)
    copier.loads.clear()
    go(streamer, blocks, STEP * 4)
    assert sum(copier.loads) == 4 * streamer.plan.step_bytes()
    assert not copier.stores


def test_all_kinds_of_numbers_and_strides_travel():
    dtypes = (torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.uint8)
    blocks = [
        type(block)(
            Dense(block.linear1.weight, torch.tensor(3.0)),
            Dense(block.linear2.weight.t().contiguous().t(), None),
            block.query_scale,
            block.key_scale[:0],
        )
        for block in toy(dtypes)
    ]
    streamer = streamer_over(blocks, BLOCKS)
    go(streamer, blocks, STEP * 2)


def test_a_tensor_with_gaps_is_laid_out_without_them():
    block = small_block(0)
    sliced = type(block)(block.linear1, Dense(torch.randn(8, 64)[:, ::2], None), block.query_scale, block.key_scale)
    layout = layout_of(sliced)
    packed = pack_into(torch.zeros(layout.nbytes, dtype=torch.uint8), sliced)
    assert torch.equal(packed.linear2.weight, sliced.linear2.weight) and packed.linear2.weight.is_contiguous()
    assert all(piece.offset % 256 == 0 for piece in layout.pieces) and layout.nbytes % 256 == 0


@settings(max_examples=80, deadline=None)
@given(st.integers(0, BLOCKS), st.integers(2, 4), st.lists(st.integers(0, BLOCKS - 1), max_size=40), st.booleans())
def test_any_order_sees_the_right_bits(swap, slots, order, late):
    blocks = toy()
    streamer = streamer_over(blocks, swap, LateCopier() if late else DirectCopier(), slots=slots)
    go(streamer, blocks, order + STEP)


def test_blocks_may_be_used_inside_each_other_as_slots_allow():
    blocks = toy()
    streamer = streamer_over(blocks, BLOCKS, slots=2)
    for n in range(BLOCKS - 1):
        with streamer.use(n) as one, streamer.use(n + 1) as two:
            assert same(one, blocks[n]) and same(two, blocks[n + 1])
    with streamer.use(0), streamer.use(1), pytest.raises(RuntimeError, match="2 ring slots"), streamer.use(2):
        pass
    go(streamer, blocks, STEP)


def test_a_use_out_of_order_is_said_once():
    said = []
    blocks = toy()
    streamer = streamer_over(blocks, BLOCKS, say=said.append)
    go(streamer, blocks, STEP)
    assert not said
    go(streamer, blocks, [5, 2, 7, 1])
    assert len(said) == 1 and "block 5" in said[0]


@pytest.mark.parametrize("at", range(len(STEP)))
@pytest.mark.parametrize("inside", [False, True])
def test_a_pass_that_is_broken_off_leaves_the_next_one_right(at, inside):
    said = []
    blocks = toy()
    streamer = streamer_over(blocks, 6, say=said.append)
    go(streamer, blocks, STEP + STEP[:at])
    if inside:
        with suppress(ZeroDivisionError), streamer.use(STEP[at]):
            raise ZeroDivisionError
    go(streamer, blocks, STEP * 2)
    assert not said
    copier = streamer._copier
    copier.loads.clear()
    go(streamer, blocks, STEP)
    assert sum(copier.loads) == streamer.plan.step_bytes()


def test_leaving_copies_no_frozen_weight_and_coming_back_is_exact():
    blocks = toy()
    copier = RecordingCopier(LateCopier())
    reread = []

    def again(block):
        reread.append(block)
        return blocks[block]

    streamer = streamer_over(blocks, 5, copier, reread=again)
    go(streamer, blocks, STEP)
    assert streamer.host_bytes() == 0
    streamer.leave()
    streamer.leave()
    assert not copier.stores and not streamer._resident and not reread
    assert streamer._memory._slots == []
    streamer.come_back()
    streamer.come_back()
    assert sorted(reread) == [n for n in range(BLOCKS) if n not in streamer.plan.streamed]
    go(streamer, blocks, STEP * 2)


def test_without_a_second_reading_resident_blocks_wait_on_the_host():
    blocks = toy()
    streamer = streamer_over(blocks, 5)
    go(streamer, blocks, STEP[:7])
    streamer.leave()
    assert sorted(streamer._left) == [n for n in range(BLOCKS) if n not in streamer.plan.streamed]
    streamer.come_back()
    assert not streamer._left
    go(streamer, blocks, STEP * 2)


def test_leaving_frees_resident_weights_unless_others_keep_them():
    blocks = [small_block(n) for n in range(4)]
    placement = Placement(plan_blocks(blocks, 0), HostPool(free_bytes=2**40), CPU)
    kept = [weakref.ref(block) for block in blocks]
    for number, block in enumerate(blocks):
        placement.place(number, block)
    streamer = placement.source(reread=small_block)
    del block
    blocks.clear()
    streamer.leave()
    assert [ref() for ref in kept] == [None] * 4
    streamer.come_back()
    go(streamer, [small_block(n) for n in range(4)], range(4))


def test_coming_back_half_way_can_be_taken_back_and_tried_again():
    blocks = toy()
    full = [True]

    def again(block):
        if full[0] and block > 4:
            raise torch.OutOfMemoryError("no room")
        return blocks[block]

    streamer = streamer_over(blocks, 3, reread=again)
    streamer.leave()
    with pytest.raises(torch.OutOfMemoryError):
        streamer.come_back()
    streamer.leave()
    full[0] = False
    streamer.come_back()
    go(streamer, blocks, STEP)


def test_closing_drops_everything_and_copies_nothing(monkeypatch):
    blocks = toy()
    streamer = streamer_over(blocks, 3)
    go(streamer, blocks, STEP)
    held = [weakref.ref(tensor) for tensor in streamer.tensors()]
    del blocks
    monkeypatch.setattr("engine.memory.streaming.block_on", lambda *args: pytest.fail("a block was copied"))
    streamer.close()
    gc.collect()
    assert not any(ref() is not None for ref in held) and not list(streamer.tensors())


def test_closing_drops_everything_though_the_card_has_failed():
    copier = DirectCopier()
    streamer = streamer_over(toy(), 3, copier)
    held = [weakref.ref(tensor) for tensor in streamer.tensors()]

    def failed():
        raise RuntimeError("CUDA error")

    copier.settle = failed
    with pytest.raises(RuntimeError, match="CUDA error"):
        streamer.close()
    gc.collect()
    assert not any(ref() is not None for ref in held)


def test_blocks_that_do_not_fit_the_plan_are_refused():
    blocks = toy()
    with pytest.raises(ValueError, match="do not fit a plan"):
        Streamer(blocks, make_plan([1] * BLOCKS, 3), DirectCopier(), CPU)
    pool = HostPool(free_bytes=2**40)
    with pytest.raises(ValueError, match="largest streamed"):
        Streamer([host_block(pool, block) for block in blocks], make_plan([8] * BLOCKS, 9), DirectCopier(), CPU)


class Chain(nn.Module):
    """Toy network over a source: in backward each block's weights are taken anew, as the real blocks do."""

    def __init__(self, source, count):
        super().__init__()
        self.source, self.count = source, count
        self.ups = nn.ParameterList(nn.Parameter(torch.zeros(8)) for _ in range(count))

    def forward(self, x):
        for n in range(self.count):
            x = _Link.apply(x, self.ups[n], self.source, n)
        return x


class _Link(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, up, source, n):
        ctx.save_for_backward(x, up)
        ctx.source, ctx.n = source, n
        with source.use(n) as weights:
            return x + torch.tanh(weights.linear2.forward(weights.linear1.forward(x)) * (1 + up))

    @staticmethod
    def backward(ctx, grad):
        x, up = ctx.saved_tensors
        with ctx.source.use(ctx.n) as weights:
            inner = weights.linear2.forward(weights.linear1.forward(x))
            slope = grad * (1 - torch.tanh(inner * (1 + up)) ** 2)
            back = weights.linear1.input_grad(weights.linear2.input_grad(slope * (1 + up)))
            return grad + back, (slope * inner).sum(0), None, None


def trained(source, steps=20, accumulation=2, sampling=False):
    """Losses and parameters after some steps."""
    net = Chain(source, BLOCKS)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(7)
    losses = []
    for step in range(steps):
        for _ in range(accumulation):
            loss = (net(torch.randn(4, 8, generator=generator)) ** 2).mean()
            loss.backward()
            losses.append(loss.detach())
        optimizer.step()
        optimizer.zero_grad()
        if sampling and step % 5 == 4:
            with torch.no_grad():
                for _ in range(3):
                    net(torch.ones(1, 8))
    return torch.stack(losses), torch.stack([up.detach() for up in net.ups])


@pytest.mark.parametrize("sampling", [False, True])
@pytest.mark.parametrize("swap", [0, 1, 4, 8, 9])
def test_twenty_steps_are_bit_identical_to_resident_ones(swap, sampling):
    blocks = [small_block(n) for n in range(BLOCKS)]
    wanted = trained(streamer_over(blocks, 0, DirectCopier()))
    found = trained(streamer_over(blocks, swap), sampling=sampling)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_one_compiled_function_serves_every_slot(monkeypatch):
    monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    blocks = [small_block(n) for n in range(BLOCKS)]
    streamer = streamer_over(blocks, 7)

    def eager(x, weights):
        return x + torch.tanh(weights.linear2.forward(weights.linear1.forward(x))) * weights.key_scale

    compiled = torch.compile(eager, backend="aot_eager", fullgraph=True)
    x = torch.randn(4, 8)
    for block in STEP * 2:
        with streamer.use(block) as weights:
            assert torch.equal(compiled(x, weights), eager(x, blocks[block]))


def test_a_processor_copies_directly():
    assert isinstance(copier_for(CPU), DirectCopier)
