"""Two steps on the largest bucket before a run's first, and no trace of them: what they need and how long they take.

The first step makes the optimizer's states, so that the second one meets all that a run holds at its highest; the
second one is timed, since the first also pays for kernels that are chosen and memory that is asked for once. Both run
through the parts that training uses. Afterwards adapter, optimizer, gradients and random generators have the bits
they had, and memory that only the probe needed is the driver's again. The table of modulations may begin elsewhere,
which changes no bit (:mod:`engine.training.modulations`).

A micro-batch stands for a step: accumulation changes how often the same memory is used, not how much of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile

import torch

from engine.batches import MicroBatch, Order, Turn
from engine.config import RunConfig
from engine.events import EventLog, Log, MemoryHeld, Probed, Progress
from engine.hardware.gpu import GIB, Gpu, read_gpus
from engine.memory.meter import MemoryMeter, restart_peak
from engine.training.control import Control
from engine.training.device import Compute
from engine.training.kit import Kit, trained
from engine.training.optimizer import clip_gradients
from engine.training.optimizer_state import load_optimizer_state, optimizer_state
from engine.training.prepare import Stopped
from engine.training.schedule import set_learning_rate
from engine.training.step import Stepper
from engine.training.stopwatch import Stopwatch

STEPS = 2
STAGE = "probe"
MOST_CONTEXT = 2.0
"""GiB; what the driver keeps for a process is less. More than this belongs to programs that the driver hides."""


@dataclass(frozen=True)
class Largest:
    """A run's largest micro-batch: its place in the order, and how many a whole step has for each process."""

    micro: MicroBatch
    turn: Turn
    number: int
    share: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its bucket."""
        placement = self.micro.items[0].view.placement
        return placement.bucket_w, placement.bucket_h


def is_wanted(config: RunConfig, compute: Compute, resuming: bool) -> bool:
    """Whether this start of a run is to be probed."""
    setting = config.memory.probe
    return setting == "on" or (setting == "auto" and compute.device.type == "cuda" and not resuming)


def largest(order: Order) -> Largest:
    """The first of the micro-batches with most pixels in an epoch.

    The first epoch stands for all: the concept's pictures make the same batches in each.
    """
    found: tuple[int, Largest] | None = None
    for turn in takewhile(lambda turn: turn.epoch == 1, order.turns()):
        micros = order.step(turn)
        # The last step of an epoch may have fewer; the first stands for all others.
        share = found[1].share if found is not None else -(-len(micros) // order.processes)
        for number, micro in enumerate(micros):
            here = Largest(micro, turn, number, share)
            pixels = len(micro.items) * here.size[0] * here.size[1]
            if found is None or pixels > found[0]:
                found = pixels, here
    assert found is not None, "a run has a step"
    return found[1]


def probe_largest(kit: Kit, config: RunConfig, events: EventLog, control: Control) -> None:
    """Make two steps on the run's largest micro-batch, take them back, and tell what they needed.

    A pause that is asked for meanwhile ends it untold: the run is to be held at once.

    Raises:
        torch.OutOfMemoryError: they do not fit; everything is as before, and so it is where they do.
        Stopped: the user stopped the run meanwhile.
    """
    compute, found = kit.compute, largest(kit.prepared.order)
    seen: list[_Step] = []
    with untouched(kit):
        restart_peak(compute.device)
        stepper = Stepper(config, kit)  # one of its own: what a gate counts is a trace too
        set_learning_rate(kit.optimizer, config, found.turn.step - 1, kit.prepared.order.total_steps)
        for number in range(STEPS):
            if _leave(control, compute):
                break
            events.append(Progress(STAGE, number, STEPS, _words(found)))
            seen.append(_step(kit, config, found, stepper))
        reserved = torch.cuda.max_memory_reserved(compute.device) if compute.device.type == "cuda" else 0
        context = _context_gb(compute)
    if compute.from_main(control.stopping()):
        raise Stopped
    if len(seen) < STEPS:
        events.append(Log("info", "The probe of the largest bucket was left for the pause"))
        return
    events.append(Progress(STAGE, STEPS, STEPS, _words(found)))
    events.append(_told(kit, found, seen, reserved / GIB, context))


@contextmanager
def untouched(kit: Kit) -> Iterator[None]:
    """Put back what steps change, whatever happens inside. The copies are in host memory: a GPU may have no room."""
    weights = kit.lora.weights.to("cpu", copy=True)
    tensors, plain = optimizer_state(kit.optimizer)
    rates = [group["lr"] for group in kit.optimizer.param_groups]
    device = kit.compute.device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            kit.lora.weights.copy_(weights)
        kit.lora.refresh()
        kit.lora.zero_grad()
        load_optimizer_state(kit.optimizer, tensors, plain)
        for group, rate in zip(kit.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate  # the one thing of a group that a saved state does not decide
        if kit.recorded is not None:
            kit.recorded.forget()  # recordings hold memory; those of the probe's shape may never be needed again
        kit.lean.traffic.take()
        kit.compute.free_unused()


@dataclass(frozen=True)
class _Step:
    """What one step needed: its memory by parts, its times by parts in seconds, and tokens."""

    held: MemoryHeld
    seconds: dict[str, float]
    tokens: int


def _step(kit: Kit, config: RunConfig, found: Largest, stepper: Stepper) -> _Step:
    """One micro-batch and the update after it, as the loop makes them; waits for the device."""
    device, watch = kit.compute.device, Stopwatch(kit.compute.device)
    metered = replace(kit, meter=MemoryMeter(device, kit.lean.tensors, lambda: trained(kit.lora, kit.optimizer), 0.0))
    metered.meter.begin()
    inputs = kit.objective.inputs(found.micro, found.turn.step, found.number)
    watch.mark("data")
    loss, _ = metered.learn(inputs, found.share, watch)
    if not getattr(kit.optimizer, "is_paged", False):
        # Paged states lie in memory that bitsandbytes never gives back, and come to the GPU as they are needed.
        grad_norm = clip_gradients(kit.lora.gradients, config.optimizer.max_grad_norm)
        stepper.apply(loss, grad_norm)
    watch.mark("optimizer")
    watch.wait()
    held = metered.meter.end()
    assert held is not None, "a meter without an interval measures every step"
    return _Step(held, watch.seconds(), inputs.tokens(kit.base.family.patch))


def _leave(control: Control, compute: Compute) -> bool:
    """Whether to end early. Several processes go through together: only the main one hears the user."""
    return compute.processes == 1 and (control.stopping() or control.pause is not None)


def _told(kit: Kit, found: Largest, seen: list[_Step], reserved_gb: float, context_gb: float) -> Probed:
    compute, pictures = kit.compute, len(found.micro.items)
    batch = min(pictures, kit.micro_batch or pictures)
    # The last step's: the first one's states came while it was measured.
    held = seen[-1].held
    standing = held.weights_gb + held.adapters_gb
    allocated, peak, total = standing + held.checkpoints_gb, held.peak_gb, 0.0
    if compute.device.type == "cuda":
        standing += held.other_gb
        allocated = standing + held.checkpoints_gb + held.working_gb
        peak, total = reserved_gb + context_gb, torch.cuda.get_device_properties(compute.device).total_memory / GIB
    last, (width, height) = seen[-1], found.size
    once = last.seconds.get("optimizer", 0.0)
    return Probed(
        peak_gb=round(peak, 4),
        allocated_gb=round(allocated, 4),
        standing_gb=round(standing, 4),
        step_s=round((sum(last.seconds.values()) - once) * found.share + once, 6),
        tokens=last.tokens * found.share,
        width=width,
        height=height,
        batch=batch,
        total_gb=round(total, 4),
        context_gb=round(context_gb, 4),
    )


def _context_gb(compute: Compute) -> float:
    """What the driver keeps for this process besides torch's memory, GiB; 0 where it cannot be told apart."""
    if compute.device.type != "cuda":
        return 0.0
    free, total = torch.cuda.mem_get_info(compute.device)
    outside = (total - free - torch.cuda.memory_reserved(compute.device)) / GIB
    return context_of(outside, next((gpu for gpu in read_gpus() if gpu.uuid == compute.gpu_uuid()), None))


def context_of(outside_gb: float, gpu: Gpu | None) -> float:
    """The driver's part of ``outside_gb``, which lie on the card beside torch's memory: other programs' are in it."""
    if gpu is None or any(process.used_gb is None for process in gpu.processes):
        return 0.0
    own = outside_gb - sum(process.used_gb or 0.0 for process in gpu.processes)
    return own if 0.0 < own <= MOST_CONTEXT else 0.0


def _words(found: Largest) -> str:
    width, height = found.size
    count = len(found.micro.items)
    return f"{count} picture{'s' if count > 1 else ''} of {width}x{height}"
