"""Which blocks stream and when: the schedule, its traffic and its stalls, against formulas."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import MemoryConfig, kohya_blocks
from engine.errors import ConfigError
from engine.memory.plan import Plan, Ring, block_bytes, choose, make_plan, spread
from engine.memory.simulate import SAMPLING, TRAINING, Pass, bound, simulate
from engine.models.flux import FluxParams

DEPTH, SINGLES = 19, 38
ALL = DEPTH + SINGLES
DIM = 3072
DOUBLE_WEIGHTS, SINGLE_WEIGHTS = 24 * DIM**2, 12 * DIM**2
MODULATION = {"double": 12 * DIM**2, "single": 3 * DIM**2}
FORWARD, BACKWARD = [1.0] * ALL, [1.6] * ALL
"""Both kinds of block have the same products for each token."""


@pytest.fixture(scope="module")
def int8() -> tuple[int, ...]:
    return block_bytes(FluxParams(), "int8")


def link_for(plan: Plan, ratio: float) -> float:
    """A link on which a step's copies take ``ratio`` of its computing."""
    return max(plan.step_bytes(), 1) / (ratio * (sum(FORWARD) + sum(BACKWARD)))


@pytest.mark.parametrize(("precision", "per_weight"), [("bf16", 2.0), ("int8", 1.0), ("fp8", 1.0), ("nf4", 0.516)])
def test_block_sizes_are_those_of_the_weights(precision, per_weight):
    sizes = block_bytes(FluxParams(), precision)
    assert len(sizes) == ALL
    assert sizes[0] == pytest.approx(DOUBLE_WEIGHTS * per_weight, rel=2e-3)
    assert sizes[-1] == pytest.approx(SINGLE_WEIGHTS * per_weight, rel=2e-3)
    assert all(size % 256 == 0 for size in sizes)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 20, 38, 39, 57])
def test_the_number_asked_for_is_chosen_and_spread(int8, count):
    chosen = choose(int8, count)
    assert len(chosen) == len(set(chosen)) == count
    if 4 <= count <= 47:
        # Bytes keep pace with computing: no third of the pass carries more than its share by two blocks' worth.
        for part in range(3):
            inside = sum(int8[block] for block in chosen if ALL * part // 3 <= block < ALL * (part + 1) // 3)
            assert inside == pytest.approx(sum(int8[block] for block in chosen) / 3, abs=2 * int8[0])


def test_even_blocks_are_chosen_evenly():
    assert spread(10, 5) == (0, 2, 4, 6, 8) or spread(10, 5) == (1, 3, 5, 7, 9)
    gaps = [b - a for a, b in zip(spread(57, 19), spread(57, 19)[1:], strict=False)]
    assert set(gaps) == {3}


def test_measured_times_decide_where_they_are_known():
    slow_end = [1.0] * 8 + [4.0] * 8
    chosen = choose([100] * 16, 5, slow_end)
    assert sum(block >= 8 for block in chosen) == 4


def test_a_plan_out_of_range_is_refused_in_words():
    with pytest.raises(ConfigError, match="blocks_to_swap") as caught:
        make_plan([10] * 4, 5)
    assert "5 wanted, the model has 4" in caught.value.detail


def test_streaming_one_block_is_no_loss():
    plan = make_plan([10] * 4, 1)
    assert plan.slots == 1 and plan.device_bytes == 40 and plan.step_bytes() == 0
    assert make_plan([10] * 4, 0).slots == 0


def test_a_few_blocks_are_taken_from_the_small_ones():
    plan = make_plan([20] * 4 + [10] * 8, 3)
    assert plan.slot_bytes == 10 and plan.device_bytes == 160 - 30 + 20


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 8, 16, 19, 28, 38, 46, 56, 57])
def test_a_step_moves_twice_what_the_ring_does_not_keep(int8, count):
    plan = make_plan(int8, count)
    report = simulate(plan, [TRAINING] * 3, FORWARD, BACKWARD, 1e9)
    kept = plan.streamed[: plan.slots] + plan.streamed[len(plan.streamed) - plan.slots :]
    expected = 2 * plan.host_bytes - sum(int8[block] for block in kept)
    if count <= plan.slots:
        expected = 0
    assert [each.copied_bytes for each in report.passes[1:]] == [expected] * 2 == [plan.step_bytes()] * 2
    assert report.passes[-1].copies == (2 * (count - plan.slots) if count > plan.slots else 0)
    assert report.misses == 0 and report.peak_slots == plan.slots


@pytest.mark.parametrize("slots", [2, 3])
@pytest.mark.parametrize("ratio", [0.3, 0.7, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("count", [8, 16, 28, 38, 47, 57])
def test_a_step_takes_the_least_that_its_traffic_allows(int8, count, ratio, slots):
    plan = make_plan(int8, count, slots=slots)
    link = link_for(plan, ratio)
    took = simulate(plan, [TRAINING] * 3, FORWARD, BACKWARD, link).passes[-1]
    assert took.seconds == pytest.approx(bound(plan, FORWARD, BACKWARD, link), rel=0.02)
    assert took.seconds - took.stall_s == pytest.approx(sum(FORWARD) + sum(BACKWARD))


@pytest.mark.parametrize("count", [16, 28, 38, 47])
def test_streams_hide_where_the_link_keeps_up(int8, count):
    plan = make_plan(int8, count)
    took = simulate(plan, [TRAINING] * 3, FORWARD, BACKWARD, link_for(plan, 0.6)).passes[-1]
    assert took.seconds <= 1.02 * (sum(FORWARD) + sum(BACKWARD))


def test_the_schedule_repeats_so_that_a_recorded_step_can(int8):
    plan = make_plan(int8, 21, slots=3)
    report = simulate(plan, [TRAINING] * 4, FORWARD, BACKWARD, 1e9)
    uses = 2 * ALL
    steps = [
        [(fetch.block, fetch.slot, fetch.after % uses) for fetch in report.fetches if fetch.after // uses == step]
        for step in range(4)
    ]
    assert steps[1] == steps[2] == steps[3] and steps[1]


def test_sampling_moves_every_streamed_block_once_and_training_goes_on(int8):
    plan = make_plan(int8, 20)
    report = simulate(plan, [TRAINING] * 2 + [SAMPLING] * 5 + [TRAINING] * 2, FORWARD, BACKWARD, 1e9)
    # Told what comes, nothing is ever missing, and the turn costs nothing.
    assert report.misses == 0
    assert [each.copied_bytes for each in report.passes[2:7]] == [plan.host_bytes] * 5
    assert report.passes[-1].copied_bytes == plan.step_bytes()


def test_untold_it_learns_from_the_pass_before(int8):
    plan = make_plan(int8, 20)
    passes = [TRAINING] * 2 + [SAMPLING] * 5 + [TRAINING] * 3
    report = simulate(plan, passes, FORWARD, BACKWARD, 1e9, told=False)
    assert report.misses <= 2 * plan.slots
    assert report.passes[5].copied_bytes == plan.host_bytes
    assert report.passes[-1].copied_bytes == plan.step_bytes()


def test_adapters_on_the_upper_blocks_only_end_the_backward_pass_early(int8):
    plan = make_plan(int8, 30)
    part = Pass(lowest=DEPTH)
    report = simulate(plan, [part] * 4, FORWARD, BACKWARD, 1e9)
    once = [block for block in plan.streamed if block < DEPTH]
    twice = [block for block in plan.streamed if block >= DEPTH]
    assert report.passes[-1].copies == len(once) + 2 * len(twice) - plan.slots
    assert report.passes[-1].copied_bytes == report.passes[-2].copied_bytes


blocks_and_swaps = st.integers(1, 24).flatmap(
    lambda n: st.tuples(st.lists(st.integers(1, 9), min_size=n, max_size=n), st.integers(0, n), st.integers(1, 5))
)
kinds = st.lists(st.sampled_from([TRAINING, SAMPLING]), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(blocks_and_swaps, kinds, st.floats(0.05, 20.0), st.booleans(), st.data())
def test_any_plan_serves_any_sequence(shape, passes, link, told, data):
    sizes, count, slots = shape
    plan = make_plan(sizes, count, slots=slots)
    times = data.draw(st.lists(st.floats(0.1, 4.0), min_size=len(sizes), max_size=len(sizes)))
    report = simulate(plan, passes, times, times, link, told=told)
    for each, kind in zip(report.passes, passes, strict=True):
        computed = sum(times[block] for block in kind.uses(plan.blocks))
        assert each.seconds == pytest.approx(computed + each.stall_s)
        assert each.seconds >= computed - 1e-6
    assert report.peak_slots <= plan.slots <= max(len(plan.streamed), 0)
    assert all(fetch.block in plan.streamed for fetch in report.fetches)
    if told:
        assert report.misses == 0


@settings(max_examples=60, deadline=None)
@given(blocks_and_swaps, st.floats(0.05, 20.0), st.data())
def test_steps_are_never_quicker_than_the_bound_and_nearly_reach_it(shape, link, data):
    sizes, count, slots = shape
    plan = make_plan(sizes, count, slots=slots)
    times = data.draw(st.lists(st.floats(0.1, 4.0), min_size=len(sizes), max_size=len(sizes)))
    report = simulate(plan, [TRAINING] * 4, times, times, link)
    least = bound(plan, times, times, link)
    if plan.blocks > 1:  # the one block of a model of one block has no turn to tell
        assert least * (1 - 1e-9) <= report.passes[-1].seconds <= least * 1.02
        assert report.passes[-1].copied_bytes == plan.step_bytes()


@settings(max_examples=60, deadline=None)
@given(blocks_and_swaps, st.lists(st.integers(0, 23), max_size=60))
def test_uses_in_any_order_leave_the_ring_consistent(shape, uses):
    sizes, count, slots = shape
    ring = Ring(make_plan(sizes, count, slots=slots))
    for use in uses:
        block = use % len(sizes)
        ring.arrive(block)
        if block in ring.plan.streamed and ring.slot_of(block) is None:
            ring.contents[ring.slot_for(block)] = block
        while (load := ring.next_load()) is not None:
            assert load[0] in ring.plan.streamed and load[0] not in ring.contents
            ring.contents[load[1]] = load[0]
        there = [block for block in ring.contents if block is not None]
        assert len(there) == len(set(there))


@pytest.mark.parametrize(
    ("number", "blocks"), [(0, (0, 0)), (1, (0, 2)), (16, (8, 16)), (18, (9, 18)), (35, (17, 36))]
)
def test_kohyas_numbers_are_understood(number, blocks):
    assert kohya_blocks(number) == blocks


@pytest.mark.parametrize("number", [36, 57, -1])
def test_kohyas_numbers_end_where_its_scripts_end(number):
    with pytest.raises(ValueError, match="0 to 35"):
        kohya_blocks(number)


def test_a_configuration_may_give_kohyas_number():
    assert MemoryConfig(blocks_to_swap="kohya:16").blocks_to_swap == 24
    for wrong in ("kohya:36", "kohya:", "kohya:-1", "16 blocks"):
        with pytest.raises(ValueError):
            MemoryConfig(blocks_to_swap=wrong)


@pytest.mark.parametrize("number", range(1, 36))
def test_bytes_over_the_link_against_an_exchange_and_a_ring_with_modulation(int8, number):
    """A swapped block of kohya's goes out and in twice a step, with its modulation; a one-way ring's in twice."""
    doubles, singles = kohya_blocks(number)
    whole = doubles * (DOUBLE_WEIGHTS + MODULATION["double"]) + singles * (SINGLE_WEIGHTS + MODULATION["single"])
    exchange, one_way = 4 * whole, 2 * whole
    streamed = [*spread(DEPTH, doubles), *(DEPTH + place for place in spread(SINGLES, singles))]
    plan = make_plan(int8, len(streamed), streamed=streamed)
    ours = 2 * plan.host_bytes  # what the ring keeps at the turns is not even counted
    assert plan.step_bytes() <= ours
    # An odd number takes two single blocks more, whose modulation is a smaller part of them.
    assert ours / exchange <= (0.40 if number % 2 else 0.37) + 1e-3
    assert ours / one_way <= (0.80 if number % 2 else 0.74) + 2e-3


def test_the_figures_for_equal_blocks():
    """Kohya's exchange moves 2.75 times the bytes, a one-way ring with modulation 1.38 times."""
    doubles, singles = kohya_blocks(16)
    lean = doubles * DOUBLE_WEIGHTS + singles * SINGLE_WEIGHTS
    whole = lean + doubles * MODULATION["double"] + singles * MODULATION["single"]
    assert 2 * lean / (4 * whole) == pytest.approx(0.36, abs=0.005)
    assert 2 * lean / (2 * whole) == pytest.approx(0.73, abs=0.005)


def test_planning_needs_no_torch():
    code = "import sys, engine.memory.plan, engine.memory.simulate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
