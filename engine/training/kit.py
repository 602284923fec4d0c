"""The parts a loop works with, built once in their order: base, adapter, optimizer, objective, painter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from engine.config import RunConfig
from engine.events import EventLog, Log, Progress
from engine.lora.adapter import LoraSet, describe_linears, inject
from engine.lora.formats import fit_state, load_lora
from engine.lora.targets import Target, select_targets
from engine.training.control import Control
from engine.training.device import Compute
from engine.training.entries import Entries
from engine.training.objective import Objective
from engine.training.optimizer import build_optimizer
from engine.training.pictures import Painter
from engine.training.prepare import Base, Prepared, Stopped


@dataclass
class Kit:
    """What a step needs, ready on its device."""

    base: Base
    compute: Compute
    prepared: Prepared
    transformer: nn.Module
    targets: list[Target]
    lora: LoraSet
    optimizer: torch.optim.Optimizer
    objective: Objective
    painter: Painter


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
        ConfigError: the adapter's settings select nothing.
    """
    family = base.family
    told = _loading(events, control)
    transformer = family.load_transformer(config.model, compute.device, compute.dtype, told)
    transformer.train()
    transformer.gradient_checkpointing = config.training.gradient_checkpointing  # type: ignore[assignment]
    targets = select_targets(describe_linears(transformer, family.lora_modules(transformer)), config.lora)
    lora = inject(transformer, targets, config.lora, config.seed)
    if not resuming:  # else the run's own state comes next, and the file may be gone by now
        _start_from(config, targets, lora)
    events.append(Log("info", f"LoRA on {len(targets)} modules, {lora.num_parameters:,} parameters"))
    entries = Entries(prepared.store, prepared.latents, prepared.texts, config.seed)
    painter = Painter(config, base, compute, events, lambda text: entries.batch_text([text]), control.stopping)
    objective = Objective(config, family, transformer, entries, compute)
    optimizer = build_optimizer(lora, config.optimizer)
    return Kit(base, compute, prepared, transformer, targets, lora, optimizer, objective, painter)


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
