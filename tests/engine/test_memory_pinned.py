"""Host memory under a budget: what is pinned, what is not and what that is said to cost, what is refused."""

from __future__ import annotations

import errno
import mmap
import os

import pytest
import torch
from memory_doubles import host_block, small_block

from engine.errors import RunError
from engine.memory import pinned
from engine.memory.frozen import block_tensors
from engine.memory.pinned import MARGIN_BYTES, SAFE_SHARE, HostPool
from engine.memory.placement import Placement, plan_blocks, plan_for_host

MIB = 2**20


@pytest.fixture
def driver(monkeypatch):
    """A driver that pins until ``driver["room"]`` is used up."""
    state = {"room": 2**40, "pinned": 0}

    def register(data):
        if data.numel() > state["room"] - state["pinned"]:
            return "the driver refused, error 2"
        state["pinned"] += data.numel()
        return ""

    monkeypatch.setattr(pinned, "_register", register)
    monkeypatch.setattr(pinned, "_quieten", lambda: None)
    monkeypatch.setattr(pinned, "_unregister", lambda data: state.update(pinned=state["pinned"] - data.numel()))
    return state


def test_buffers_are_flat_aligned_and_of_the_size_asked_for():
    pool = HostPool(free_bytes=2**40)
    for size in (1, 4096, 5 * MIB + 3):
        data = pool.take(size).data
        assert data.dtype == torch.uint8 and data.shape == (size,) and data.data_ptr() % 4096 == 0
    assert not pool.words()  # without a GPU there is nothing to pin for


def test_all_is_pinned_within_the_budget(driver):
    pool = HostPool(10 * MIB, pin=True, free_bytes=2**40)
    buffers = [pool.take(4 * MIB) for _ in range(2)]
    assert all(buffer.pinned for buffer in buffers) and not pool.words()
    assert pool.pinned_bytes == driver["pinned"] == 8 * MIB
    pool.close()
    assert driver["pinned"] == pool.pinned_bytes == 0


def test_beyond_the_budget_memory_is_ordinary_and_it_is_said(driver):
    pool = HostPool(10 * MIB, pin=True, free_bytes=2**40)
    buffers = [pool.take(4 * MIB) for _ in range(5)]
    assert [buffer.pinned for buffer in buffers] == [True, True, False, False, False]
    words = pool.words()
    assert "not pinned (memory.pinned_gb allows" in words and "computing waits" in words


def test_a_driver_that_refuses_is_named(driver):
    driver["room"] = 4 * MIB
    pool = HostPool(pin=True, free_bytes=2**40)
    assert [pool.take(4 * MIB).pinned for _ in range(3)] == [True, False, False]
    assert "the driver refused" in pool.words()


def test_no_limit_named_means_a_safe_share_of_what_is_free(driver):
    pool = HostPool(pin=True, free_bytes=MARGIN_BYTES + 100 * MIB)
    taken = [pool.take(10 * MIB) for _ in range(8)]
    assert sum(buffer.pinned for buffer in taken) == int(10 * SAFE_SHARE)


def test_a_host_without_room_is_a_clear_error_before_anything_is_taken():
    pool = HostPool(free_bytes=MARGIN_BYTES + 100 * MIB)
    with pytest.raises(RunError) as caught:
        pool.require(101 * MIB, "28 streamed blocks")
    assert "28 streamed blocks" in caught.value.detail and "blocks_to_swap" in caught.value.hint
    for _ in range(10):
        pool.take(10 * MIB)
    with pytest.raises(RunError):
        pool.take(1)


def test_memory_taken_and_not_yet_written_counts(monkeypatch):
    monkeypatch.setattr(pinned, "host_memory", lambda: (4.0, 8.0, 1.0))  # the system sees no untouched page
    pool = HostPool()
    pool.take(1536 * MIB)
    with pytest.raises(RunError):
        pool.take(1024 * MIB)


def test_what_others_took_meanwhile_counts(monkeypatch):
    used = [1.0]
    monkeypatch.setattr(pinned, "host_memory", lambda: (used[0], 8.0, 1.0))
    pool = HostPool()
    used[0] = 6.5
    with pytest.raises(RunError):
        pool.take(MIB)


def test_a_buffer_given_back_can_be_taken_again(driver):
    pool = HostPool(4 * MIB, pin=True, free_bytes=MARGIN_BYTES + 4 * MIB)
    buffer = pool.take(4 * MIB)
    pool.give_back(buffer)
    assert pool.take(4 * MIB).pinned and buffer.data.numel() == 0


def test_a_block_in_one_buffer_is_the_same_block():
    block = small_block(3, dtype=torch.bfloat16)
    packed = host_block(HostPool(free_bytes=2**40), block)
    for name, tensor in block_tensors(packed.weights).items():
        assert torch.equal(tensor, block_tensors(block)[name])
        inside = tensor.data_ptr() - packed.buffer.data.data_ptr()
        assert 0 <= inside < packed.layout.nbytes and inside % 256 == 0


def test_blocks_that_the_host_can_hold_are_counted():
    pool = HostPool(free_bytes=MARGIN_BYTES + 100 * MIB)
    assert pool.holds([30 * MIB] * 5) == 3
    assert pool.holds([10 * MIB] * 5) == 5


def test_a_host_short_of_memory_streams_fewer_blocks_and_says_so():
    blocks = [small_block(n) for n in range(8)]
    each = plan_blocks(blocks, 8).sizes[0]
    plan, words = plan_for_host(blocks, 6, HostPool(free_bytes=MARGIN_BYTES + 4 * each))
    assert len(plan.streamed) == 4 and "4 of 6 streamed blocks" in words and "more" in words
    assert plan_for_host(blocks, 6, HostPool(free_bytes=2**40)) == (plan_blocks(blocks, 6), "")
    assert plan_for_host(blocks, 6, HostPool(free_bytes=0))[0].streamed == ()
    with pytest.raises(RunError, match="host memory"):
        Placement(plan_blocks(blocks, 6), HostPool(free_bytes=MARGIN_BYTES), "cpu")


def mapping_of(address):
    """Permissions and name of the mapping that an address lies in."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            first, last = (int(end, 16) for end in line.split()[0].split("-"))
            if first <= address < last:
                return line.split()[1], line.split()[5:]
    raise AssertionError("not mapped")


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="the system does not tell its mappings")
def test_memory_is_private_since_shared_memory_gets_no_huge_pages():
    buffer = HostPool(free_bytes=2**40).take(4 * MIB)
    assert mapping_of(buffer.data.data_ptr()) == ("rw-p", [])


def test_a_kernel_without_huge_pages_gives_plain_ones(monkeypatch):
    class Plain(mmap.mmap):
        def madvise(self, *args):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(pinned.mmap, "mmap", Plain)
    assert HostPool(free_bytes=2**40).take(MIB).data.numel() == MIB


def test_a_system_that_gives_no_memory_is_the_same_clear_error(monkeypatch):
    def none(*args, **kwargs):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(pinned.mmap, "mmap", none)
    pool = HostPool(free_bytes=2**40)
    with pytest.raises(RunError) as caught:
        pool.take(MIB)
    assert caught.value.title == "Too little host memory" and "Cannot allocate memory" in caught.value.detail
    assert "blocks_to_swap" in caught.value.hint and not pool.pageable_bytes


def test_processes_of_one_machine_share_what_is_free_and_what_may_be_pinned(driver):
    free = MARGIN_BYTES + 100 * MIB
    alone, one_of_four = HostPool(free_bytes=free), HostPool(free_bytes=free, processes=4)
    assert (alone.free_bytes(), one_of_four.free_bytes()) == (100 * MIB, 25 * MIB)
    pool = HostPool(8 * MIB, pin=True, free_bytes=2**40, processes=4)
    assert [pool.take(MIB).pinned for _ in range(3)] == [True, True, False]


def test_what_is_left_unpinned_later_is_news_once(driver):
    pool = HostPool(200 * MIB, pin=True, free_bytes=2**40)
    pool.take(200 * MIB)
    assert not pool.news()
    later = pool.take(300 * MIB)
    assert "0.3 GB of 0.5 GB" in pool.news() and not pool.news()
    pool.take(1)
    assert not pool.news(), "the same words again"
    pool.give_back(later)
    assert not pool.news()
    pool.take(900 * MIB)
    assert "0.9 GB" in pool.news()


def test_copies_under_way_end_before_their_memory_is_given_up(driver, monkeypatch):
    pool, seen = HostPool(pin=True, free_bytes=2**40), []
    pool.take(MIB)
    monkeypatch.setattr(pinned, "_quieten", lambda: seen.append(driver["pinned"]))
    pool.close()
    pool.close()
    assert seen == [MIB] and driver["pinned"] == 0
