"""The parts a loop works with, built once in their order: base, adapter, optimizer, objective, painter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from engine.blocks.transformer import LeanFlux
from engine.config import RunConfig
from engine.events import EventLog, Log, Progress
from engine.lora.adapter import LoraSet, make_adapters
from engine.lora.formats import fit_state, load_lora
from engine.lora.targets import Target, select_targets
from engine.memory.conditioning import CHUNK
from engine.memory.meter import MemoryMeter
from engine.training.control import Control
from engine.training.device import Compute
from engine.training.lean import Lean, build_lean, linear_shapes
from engine.training.modulations import Modulations
from engine.training.objective import Inputs, Objective
from engine.training.optimizer import build_optimizer
from engine.training.pictures import Painter
from engine.training.prepare import Base, Prepared, Stopped
from engine.training.recorded import Recorded, recorded
from engine.training.stopwatch import Stopwatch


@dataclass
class Kit:
    """What a step needs, ready on its device.

    Attributes:
        micro_batch: most pictures that go through the model together; 0 takes micro-batches whole.
    """

    base: Base
    compute: Compute
    prepared: Prepared
    lean: Lean
    targets: list[Target]
    lora: LoraSet
    optimizer: torch.optim.Optimizer
    objective: Objective
    painter: Painter
    meter: MemoryMeter
    recorded: Recorded | None = None
    micro_batch: int = 0

    @property
    def transformer(self) -> LeanFlux:
        """What is trained."""
        return self.lean.transformer

    def learn(self, inputs: Inputs, share: int, watch: Stopwatch) -> Tensor:
        """Loss and backward of a micro-batch or a part of one; what it adds to 1/``share`` of the step's loss,
        detached, valid until the next call."""
        if self.recorded is not None and inputs.rows is None:
            # Not metered: what stands afterwards is no checkpoint, the backward is over by then.
            recorded_loss = self.recorded.loss(inputs, share)
            watch.mark("recorded")
            return recorded_loss
        with self.meter.forward():
            loss = self.objective.loss(inputs) / share
            if inputs.rows is not None:
                loss = loss * inputs.share
        watch.mark("forward")
        self.compute.backward(loss)
        watch.mark("backward")
        return loss.detach()

    def tell(self, events: EventLog) -> None:
        """After a step: what memory holds, if that was measured, and what has become slower, with the reason."""
        if news := self.lean.pool.news():
            events.append(Log("info", news))
        held = self.meter.end()
        if held is not None:
            events.append(held)
        if self.lean.compiled is not None and (reason := self.lean.compiled.take_reason()):
            events.append(Log("warning", reason))
        if self.recorded is not None and (reason := self.recorded.graphs.take_reason()):
            events.append(Log("warning", reason))


def build_kit(
    config: RunConfig,
    base: Base,
    compute: Compute,
    prepared: Prepared,
    events: EventLog,
    control: Control,
    resuming: bool,
) -> Kit:
    """Load and freeze the base, put the adapter in, and build what trains it.

    Raises:
        ModelFileError: the transformer or ``lora.resume_from`` cannot be loaded.
        ConfigError: the adapter's settings select nothing, or [memory] asks for what this machine cannot do.
        RunError: too little host memory for what is to stream.
    """
    targets = select_targets(linear_shapes(base), config.lora)
    lora = make_adapters(targets, config.lora, config.seed, compute.device)
    if not resuming:  # else the run's own state comes next, and the file may be gone by now
        _start_from(config, targets, lora)
    say = partial(note, events)
    lean = build_lean(config, base, compute, lora.adapters, _loading(events, control), say)
    try:
        return _build(config, base, compute, prepared, events, control, targets, lora, lean)
    except BaseException:  # as in build_lean: nothing pinned is left behind
        lean.close()
        raise


def _build(
    config: RunConfig,
    base: Base,
    compute: Compute,
    prepared: Prepared,
    events: EventLog,
    control: Control,
    targets: list[Target],
    lora: LoraSet,
    lean: Lean,
) -> Kit:
    """The parts over an adapter and the base that carries it."""
    say = partial(note, events)
    lean.transformer.train()
    for text in lean.notes:
        say(text)
    events.append(Log("info", f"LoRA on {len(targets)} modules, {lora.num_parameters:,} parameters"))
    entries = prepared.entries(config)
    ahead = lean.conditioning if config.memory.modulation_cache else None
    painter = Painter(config, base, compute, events, lambda text: entries.batch_text([text]), control.stopping, ahead)
    modulations = None
    if ahead is not None:
        chunk = max(1, min(CHUNK, lean.pool.free_bytes() // 4 // ahead.bytes_of(1)))
        modulations = Modulations(ahead, prepared.order, entries, config, base.family, compute, chunk)
    objective = Objective(config, base.family, lean.transformer, entries, compute, modulations)
    optimizer = build_optimizer(lora, config.optimizer)
    meter = MemoryMeter(compute.device, lean.tensors, lambda: trained(lora, optimizer))
    graphs, why = recorded(config, objective, compute)
    if why:
        say(why)
    return Kit(base, compute, prepared, lean, targets, lora, optimizer, objective, painter, meter, graphs)


def trained(lora: LoraSet, optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """Everything that exists because something is trained."""
    yield from (lora.weights, lora.gradients)
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def note(events: EventLog, text: str) -> None:
    """Say what was decided in the log."""
    events.append(Log("info", text))


def _loading(events: EventLog, control: Control) -> Callable[[int, int], None]:
    """Tell the loading's progress in MB, some fifty times in all, and end it when the user stops."""
    shown = 0

    def tell(done: int, total: int) -> None:
        nonlocal shown
        if control.stopping():
            raise Stopped
        if done - shown >= total / 50 or done == total:
            shown = done
            events.append(Progress("load transformer", done // 10**6, max(total // 10**6, 1), "MB"))

    return tell


def _start_from(config: RunConfig, targets: list[Target], lora: LoraSet) -> None:
    source = config.lora.resume_from
    if source is not None:
        state, found = load_lora(source)
        lora.load_state(fit_state(state, found, targets))
