"""Block inputs in host memory and back: the same bits, static memory, both directions at once."""

from __future__ import annotations

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_doubles import LateCopier, RecordingCopier

from engine.errors import RunError
from engine.memory.offload import AHEAD, Offloader
from engine.memory.pinned import MARGIN_BYTES, HostPool

GIB = 2**30


def offloader(free=2**40):
    copier = RecordingCopier(LateCopier())
    return Offloader(copier, HostPool(free_bytes=free)), copier


def inputs(count, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 5 + n % 3, 4, generator=generator).to(dtype) for n in range(count)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_what_was_put_comes_back_in_reverse_bit_for_bit(count, dtype):
    store, _ = offloader()
    for step in range(3):
        tensors = inputs(count, step, dtype)
        handles = [store.put(x) for x in tensors]
        for x, handle in zip(reversed(tensors), reversed(handles), strict=True):
            assert torch.equal(store.get(handle), x)


def test_memory_of_what_has_left_may_be_used_again():
    store, _ = offloader()
    tensors = inputs(9)
    wanted = [x.clone() for x in tensors]
    handles = []
    for n, x in enumerate(tensors):
        handles.append(store.put(x))
        if n >= AHEAD:
            tensors[n - AHEAD].fill_(torch.nan)
    assert sum(handle.here is not None for handle in handles) == AHEAD
    for handle, x in zip(reversed(handles), reversed(wanted), strict=True):
        assert torch.equal(store.get(handle), x)
        assert sum(each.here is not None for each in handles) <= AHEAD


def test_the_last_ones_put_need_no_way_back():
    store, copier = offloader()
    tensors = inputs(10)
    handles = [store.put(x) for x in tensors]
    for handle in reversed(handles):
        store.get(handle)
    assert len(copier.stores) == 10 and len(copier.loads) == 10 - AHEAD


def test_the_next_ones_are_on_their_way_before_they_are_asked_for():
    store, copier = offloader()
    handles = [store.put(x) for x in inputs(10)]
    for n, handle in enumerate(reversed(handles)):
        before = len(copier.loads)
        store.get(handle)
        assert handle.place is None
        # Nothing is fetched by the getting itself, only ahead of it.
        assert len(copier.loads) - before <= (AHEAD if n == 0 else 1)


def test_steps_share_their_host_memory():
    store, _ = offloader()
    seen = set()
    for step in range(6):
        handles = [store.put(x) for x in inputs(8, step)]
        for handle in reversed(handles):
            store.get(handle)
        seen.add(store.pool.pageable_bytes)
        kept = handles  # noqa: F841  a loss that outlives its backward pass keeps the handles too
    assert len(seen) == 1


def test_a_pass_that_is_broken_off_gives_its_places_back():
    store, _ = offloader()
    for step in range(5):
        handles = [store.put(x) for x in inputs(8, step)]
        for handle in list(reversed(handles))[: step + 1]:
            store.get(handle)
        del handles, handle
        gc.collect()
    grown = store.pool.pageable_bytes
    tensors = inputs(8)
    handles = [store.put(x) for x in tensors]
    for handle, x in zip(reversed(handles), reversed(tensors), strict=True):
        assert torch.equal(store.get(handle), x)
    assert store.pool.pageable_bytes == grown <= (8 + AHEAD) * 2**20


def test_a_handle_is_given_back_once():
    store, _ = offloader()
    handle = store.put(torch.ones(3))
    store.get(handle)
    with pytest.raises(RuntimeError, match="once"):
        store.get(handle)


def test_leaving_the_gpu_between_steps_holds_nothing():
    store, _ = offloader()
    handles = [store.put(x) for x in inputs(4)]
    store.leave()
    del handles
    store.come_back()
    x = torch.randn(3, 3)
    assert torch.equal(store.get(store.put(x)), x) and store.host_bytes() == 0


def test_a_host_that_is_full_is_a_clear_error():
    store, _ = offloader(free=MARGIN_BYTES + 2**20)
    store.put(torch.ones(4))
    with pytest.raises(RunError) as caught:
        store.put(torch.ones(4))
    assert "wanted" in caught.value.detail and "free" in caught.value.detail


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.data())
def test_any_order_of_giving_back_is_right(sizes, data):
    store, _ = offloader()
    for _ in range(2):
        tensors = [torch.randn(size, 3) for size in sizes]
        handles = [store.put(x) for x in tensors]
        for n in data.draw(st.permutations(range(len(sizes)))):
            assert torch.equal(store.get(handles[n]), tensors[n])
