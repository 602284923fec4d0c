"""Twenty steps of a small FLUX with streaming, offloading, releases and interruptions: the bits of a resident run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch
from flux_steps import SMALL, make_step
from memory_doubles import LateCopier, RecordingCopier
from model_files import tiny_flux
from torch import Tensor

from engine.blocks.plain import plain_blocks
from engine.blocks.transformer import LeanFlux
from engine.config import OptimizerConfig
from engine.errors import RunError
from engine.memory.base_file import block_templates
from engine.memory.copier import Copier, DirectCopier
from engine.memory.frozen import BlockWeights, DoubleWeights, SingleWeights, StreamWeights, block_tensors
from engine.memory.load import load_base
from engine.memory.offload import Offloader
from engine.memory.pinned import HostPool, pack_into
from engine.memory.placement import Placement, plan_blocks, stream_more
from engine.memory.plan import make_plan
from engine.memory.precision import pack
from engine.memory.streaming import Streamer
from engine.training.optimizer import build_optimizer
from engine.training.release import leave_gpu, return_to_gpu, room_on_host

STEPS = 20
BLOCKS = SMALL.depth + SMALL.depth_single_blocks
CPU = torch.device("cpu")


@dataclass
class Setting:
    """How a run keeps its weights, and what happens to it on the way."""

    swap: int = 0
    checkpointing: str = "full"
    precision: str = "auto"
    batch: int = 1
    accumulation: int = 1
    slots: int = 2
    streamed: bool = True
    events: dict[int, str] = field(default_factory=dict)
    lora: dict[str, float] = field(default_factory=dict)


@dataclass
class Ran:
    """What came of it."""

    losses: Tensor
    weights: Tensor
    copier: RecordingCopier


def packed(block: BlockWeights, precision: str) -> BlockWeights:
    """The block with its linears packed."""

    def linears(part):
        return {
            name: pack(linear.weight, linear.bias, precision, torch.float32)
            for name, linear in vars(part).items()
            if hasattr(linear, "forward")
        }

    if isinstance(block, SingleWeights):
        return replace(block, **linears(block))
    streams = {name: replace(part, **linears(part)) for name, part in vars(block).items()}
    assert isinstance(block, DoubleWeights) and all(isinstance(part, StreamWeights) for part in streams.values())
    return DoubleWeights(**streams)


def streamer(blocks: list[BlockWeights], setting: Setting, copier: Copier) -> Streamer:
    plan = plan_blocks(blocks, setting.swap, setting.slots)
    placement = Placement(plan, HostPool(free_bytes=2**40), CPU)
    for number, block in enumerate(blocks):
        room = placement.room(number, block)
        assert (room is None) == (number not in plan.streamed)
        placement.place(number, block)
    return placement.source(copier, reread=lambda number: blocks[number])


def train(setting: Setting, late: bool = True) -> Ran:
    """Some steps, with whatever happens before each."""
    step = make_step(batch=setting.batch, **setting.lora)
    copier = RecordingCopier(LateCopier() if late else DirectCopier())
    offload = Offloader(copier, HostPool(free_bytes=2**40)) if setting.checkpointing == "offload" else None
    model = LeanFlux.from_plain(step.model, step.lora, checkpointing=setting.checkpointing, offload=offload)
    blocks = [packed(block, setting.precision) for block in plain_blocks(step.model)]
    if setting.streamed:
        model.source = streamer(blocks, setting, copier)
    else:
        model.source.blocks[:] = blocks
    model.train()
    optimizer = build_optimizer(step.lora, OptimizerConfig(learning_rate=1e-3))
    kit = SimpleNamespace(
        transformer=model,
        lora=step.lora,
        optimizer=optimizer,
        compute=SimpleNamespace(device=CPU, free_unused=lambda: None),
        recorded=None,
    )
    generator = torch.Generator().manual_seed(11)
    losses = []
    torch.manual_seed(5)  # dropout
    for number in range(STEPS):
        happens(setting.events.get(number, ""), kit, step.arguments)
        for _ in range(setting.accumulation):
            arguments = step.arguments | {"img": torch.randn(step.arguments["img"].shape, generator=generator)}
            loss = (model(**arguments) - step.grad).square().mean() / setting.accumulation
            loss.backward()
            losses.append(loss.detach())
        optimizer.step()
        step.lora.refresh()
        step.lora.zero_grad()
    return Ran(torch.stack(losses), step.lora.weights.detach().clone(), copier)


class Broken(Exception):
    """Something that ends a pass early."""


def happens(event: str, kit, arguments) -> None:
    """Sampling, a release, or a pass that ends early; none may leave a trace."""
    model = kit.transformer
    match event:
        case "sampling":
            model.eval()
            with torch.no_grad():
                for _ in range(3):
                    model(**arguments)
            model.train()
        case "release":
            leave_gpu(kit)
            if isinstance(model.source, Streamer):
                assert not model.source._resident and model.source._memory._slots == []
            return_to_gpu(kit)
        case "stream more":
            before = model.source.plan
            plan = stream_more(before, BLOCKS, 2**40)
            assert set(before.streamed) < set(plan.streamed) and plan.device_bytes < before.device_bytes
            model.source.restream(plan, HostPool(free_bytes=2**40))
            assert len(model.source._resident) == BLOCKS - len(plan.streamed)
        case "broken forward" | "broken backward":
            with pytest.raises(Broken):
                broken(model, arguments, backward="backward" in event)
            kit.lora.zero_grad()


def broken(model, arguments, backward):
    """End a pass at its middle block."""
    use, uses = model.source.use, [0]

    def breaks(block):
        uses[0] += 1
        if uses[0] == (BLOCKS * 3 // 2 if backward else BLOCKS // 2) + 1:
            raise Broken
        return use(block)

    model.source.use = breaks
    try:
        model(**arguments).square().mean().backward()
    finally:
        del model.source.use


@pytest.fixture(scope="module")
def resident():
    """Runs with everything on the device, one for each set of what may change the numbers."""
    made: dict[tuple, Ran] = {}

    def run(setting: Setting) -> Ran:
        key = (setting.checkpointing, setting.precision, setting.batch, setting.accumulation, str(setting.lora))
        if key not in made:
            plain = "full" if setting.checkpointing == "offload" else setting.checkpointing
            made[key] = train(replace(setting, checkpointing=plain, streamed=False, events={}), late=False)
        return made[key]

    return run


def identical(setting: Setting, resident) -> Ran:
    found, wanted = train(setting), resident(setting)
    assert torch.equal(found.losses, wanted.losses)
    assert torch.equal(found.weights, wanted.weights)
    assert found.losses[-1] < found.losses[0]
    return found


MODES = ("none", "attention", "full", "offload")


@pytest.mark.parametrize(
    ("swap", "checkpointing"), [(0, "full"), (0, "offload"), *((3, mode) for mode in MODES), (BLOCKS, "offload")]
)
def test_every_number_of_blocks_and_every_checkpointing(swap, checkpointing, resident):
    ran = identical(Setting(swap, checkpointing), resident)
    assert bool(ran.copier.stores) == (checkpointing == "offload")


@pytest.mark.parametrize("precision", ["int8", "fp8", "nf4"])
def test_every_precision(precision, resident):
    if precision == "nf4":
        pytest.importorskip("bitsandbytes")
    identical(Setting(4, precision=precision), resident)


def test_batches_and_accumulation_with_dropout(resident):
    identical(Setting(4, "offload", batch=2, accumulation=2, lora={"dropout": 0.2}), resident)


@pytest.mark.parametrize(
    ("event", "swap"),
    [("sampling", 4), ("release", 0), ("release", 4), ("broken forward", 4), ("broken backward", 4)],
)
def test_what_happens_on_the_way_leaves_no_trace(event, swap, resident):
    # No dropout: a pass that is broken off draws, as it would anywhere.
    identical(Setting(swap, "offload", events={3: event, 4: event, 11: event}), resident)


def test_a_release_of_resident_blocks_without_a_streamer(resident):
    setting = Setting(events={2: "release", 9: "release"})
    found, wanted = train(replace(setting, streamed=False)), resident(setting)
    assert torch.equal(found.losses, wanted.losses) and torch.equal(found.weights, wanted.weights)


def test_bytes_over_the_link_are_exactly_the_plans():
    """S streamed blocks, R of them kept at either turn; no modulation, nothing back."""
    setting = Setting(4)
    ran = train(setting)
    sizes = {size for size in ran.copier.loads}
    step = make_step()
    plan = plan_blocks(plain_blocks(step.model), 4)
    whole = [sum(t.numel() * t.element_size() for t in block_tensors(b).values()) for b in plain_blocks(step.model)]
    assert all(any(size - 256 * 20 <= w <= size for w in whole) for size in sizes)  # a block's tensors and no more
    first = sum(plan.sizes[block] for block in plan.streamed[: plan.slots])
    assert sum(ran.copier.loads) == first + STEPS * plan.step_bytes()
    assert len(ran.copier.loads) == plan.slots + STEPS * 2 * (4 - plan.slots)
    assert not ran.copier.stores


@pytest.mark.parametrize("precision", ["auto", "int8", "nf4"])
def test_a_base_is_loaded_straight_to_where_the_plan_wants_it(precision, tmp_path):
    if precision == "nf4":
        pytest.importorskip("bitsandbytes")
    path = tiny_flux(tmp_path / "base.safetensors")

    def load(**where):
        return load_base(
            path, device=CPU, dtype=torch.float32, precision=precision, cache_dir=tmp_path / precision, **where
        )

    wanted = load()
    plan = plan_blocks(block_templates(wanted.params, precision, torch.float32), 2)
    for _ in range(2):  # packed on the way, then read from the packed copy
        placement = Placement(plan, HostPool(free_bytes=2**40), CPU)
        base = load(room=placement.room, place=placement.place)
        source = placement.source(LateCopier(), reread=base.reread)
        for happens_before in (lambda: None, source.leave, source.come_back):
            happens_before()
            if not source._away:
                same_blocks(source, wanted.blocks)


def same_blocks(source, blocks):
    for number, block in enumerate(blocks):
        with source.use(number) as weights:
            for name, tensor in block_tensors(weights).items():
                assert torch.equal(tensor, block_tensors(block)[name]), (number, name)


def test_room_on_the_host_counts_adapters_and_states_but_no_frozen_block():
    step = make_step()
    model = LeanFlux.from_plain(step.model, step.lora)
    model.source = streamer(plain_blocks(step.model), Setting(3), DirectCopier())
    optimizer = torch.optim.AdamW([step.lora.weights.requires_grad_(False).clone().requires_grad_()], 1e-3)
    kit = SimpleNamespace(transformer=model, lora=step.lora, optimizer=optimizer)
    needed, free = room_on_host(kit)
    held = sum(p.numel() * 4 for p in model.parameters()) + 8 * step.lora.weights.numel()
    assert needed == pytest.approx(2.0 + held / 2**30, abs=1e-6) and free > 0


def test_a_buffer_on_the_way_keeps_the_bits_of_packed_blocks():
    for precision in ("int8", "fp8"):
        block = packed(plain_blocks(make_step().model)[0], precision)
        buffer = torch.zeros(plan_blocks([block], 0).sizes[0], dtype=torch.uint8)
        again = pack_into(buffer, block)
        for name, tensor in block_tensors(again).items():
            assert torch.equal(tensor.view(torch.uint8), block_tensors(block)[name].contiguous().view(torch.uint8))


@pytest.mark.parametrize("checkpointing", ["full", "offload"])
def test_more_blocks_stream_from_the_middle_on(checkpointing, resident):
    """At once after a pass that broke off, as the out-of-memory ladder does it, and again later."""
    identical(Setting(0, checkpointing, events={4: "broken backward", 5: "stream more", 9: "release"}), resident)
    identical(Setting(2, checkpointing, events={3: "broken forward", 4: "stream more"}), resident)


def test_a_host_without_room_streams_fewer_blocks_or_no_more():
    before = make_plan([4 * 2**20] * 12, 3)
    some = stream_more(before, 12, 17 * 2**20)
    assert len(some.streamed) == 7 and set(before.streamed) < set(some.streamed)
    assert stream_more(before, 12, 0) is before
    assert stream_more(make_plan([1, 1], 0), 1, 2**40).streamed == ()  # its slot would be as large


def test_blocks_that_find_no_room_on_the_host_stay_where_they_are():
    source = streamer(plain_blocks(make_step().model), Setting(2), DirectCopier())
    before, pool = source.plan, HostPool(free_bytes=2**31 + 1000)
    with pytest.raises(RunError, match="Too little host memory"):
        source.restream(stream_more(before, BLOCKS, 2**40), pool)
    assert source.plan is before and source._memory.slots == before.slots
    assert pool.free_bytes() == 1000
