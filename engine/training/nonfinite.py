"""What is wrong with a step that is not finite: which of its parts, on which pictures, and the likely cause.

The step itself told a loss and a gradient norm and changed nothing (:mod:`engine.training.gate`). Everything that
went into it is a function of its place, so it can be made again and looked at piece by piece.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from engine.batches import MicroBatch, Turn
from engine.errors import RunError
from engine.memory.exhaustion import ran_out
from engine.text import safe_text
from engine.training.kit import Kit
from engine.training.objective import Inputs

GROWN = 1e3
"""A weight of an adapter beyond this has run away: they begin below 1 and rarely leave it."""


class NonFinite(RunError):
    """A step's numbers are not finite, or what it began with was not; it changed nothing."""

    def __init__(self, turn: Turn, loss: float, grad_norm: float, names: str) -> None:
        super().__init__(
            "The loss is no longer a number",
            f"step {turn.step}: loss {loss}, gradient norm {grad_norm}, on {names}",
            "The last saved state is intact. Lower optimizer.learning_rate, then start again.",
        )
        self.turn = turn
        self.loss = loss
        self.grad_norm = grad_norm
        self.names = names


class Corrupted(RunError):
    """Weights or the optimizer's state were found not finite before they were written; nothing was written."""

    def __init__(self, parts: tuple[str, ...], step: int) -> None:
        super().__init__(
            "The weights are no longer numbers",
            f"after step {step}: {', '.join(parts)} hold values that are not finite; nothing was written",
            "The last saved state is intact: `kiln resume` goes on from it.",
        )
        self.parts = parts


@dataclass(frozen=True)
class Micro:
    """One micro-batch of a broken step, as it is written down.

    Attributes:
        pictures, captions, sigmas: of its samples, in order.
        broken: what of it is not finite, as "latents of a.png"; empty where all that could be looked at is.
        loss: its share of the step's loss; None where it was not looked at alone.
        gradient: whether the gradients were finite after it; None likewise.
    """

    pictures: tuple[str, ...]
    captions: tuple[str, ...]
    sigmas: tuple[float, ...] = ()
    broken: tuple[str, ...] = ()
    loss: float | None = None
    gradient: bool | None = None


@dataclass
class Look:
    """Watches a step's micro-batches one by one; the host waits for each.

    Attributes:
        losses: each one's share of the loss, by its number in the step.
        sound: whether the gradients were finite after it, likewise.
    """

    losses: dict[int, float] = field(default_factory=dict)
    sound: dict[int, bool] = field(default_factory=dict)

    def after(self, number: int, loss: Tensor, gradients: Tensor) -> None:
        """Note what a micro-batch, or a part of one, added."""
        self.losses[number] = self.losses.get(number, 0.0) + float(loss)
        self.sound[number] = is_finite(gradients)


def is_finite(tensor: Tensor) -> bool:
    """Whether every value is; waits for the device."""
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def broken_tensors(weights: Tensor, optimizer: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Which of "weights" and "optimizer state" hold values that are not finite."""
    parts = ["weights"] if not is_finite(weights) else []
    if not all(map(is_finite, optimizer.values())):
        parts.append("optimizer state")
    return tuple(parts)


def examine(kit: Kit, turn: Turn, look: Look | None) -> list[Micro]:
    """Make the inputs of a step's micro-batches again and look at each; what ``look`` saw is added.

    Micro-batches of other processes are named alone.
    """
    found = []
    for number, micro in enumerate(kit.prepared.order.step(turn)):
        named = Micro(
            tuple(str(item.view.sample.path) for item in micro.items), tuple(item.caption for item in micro.items)
        )
        if number % kit.compute.processes == kit.compute.rank:
            named = _looked_at(kit, turn, number, micro, named)
        if look is not None:
            named = replace(named, loss=look.losses.get(number), gradient=look.sound.get(number))
        found.append(named)
    return found


def _looked_at(kit: Kit, turn: Turn, number: int, micro: MicroBatch, named: Micro) -> Micro:
    try:
        inputs = kit.objective.inputs(micro, turn.step, number)
        return replace(named, sigmas=tuple(inputs.sigmas.tolist()), broken=tuple(_broken(inputs, micro)))
    except RuntimeError as err:
        if not ran_out(err):
            raise
        return replace(named, broken=("no memory to look at it",))


def _broken(inputs: Inputs, micro: MicroBatch) -> Iterator[str]:
    text, modulation = inputs.text, inputs.modulation
    parts = {
        "latents": inputs.latents,
        "noise": inputs.noise,
        "noise level": inputs.sigmas,
        "text embeddings": text.states,
        "pooled text embedding": text.pooled,
    }
    if modulation is not None:
        parts |= {"modulation": modulation.rows, "modulation vector": modulation.vec}
    for name, tensor in parts.items():
        for row, item in zip(tensor, micro.items, strict=True):
            if not is_finite(row):
                yield f"{name} of {item.view.sample.name}"


def likely_cause(kit: Kit, found: list[Micro], corrupted: tuple[str, ...], turn: Turn) -> str:
    """What most likely made a step not finite, in a sentence."""
    if corrupted:
        return f"the adapter's {' and '.join(corrupted)} are not finite: a flipped bit, or a damaged state"
    inputs = [part for micro in found for part in micro.broken]
    if inputs:
        return f"{safe_text('; '.join(inputs[:4]), 400)} not finite: a damaged cache entry, or a fault of memory"
    config = kit.painter.config
    rate, warm_up = kit.optimizer.param_groups[0]["lr"], config.schedule.warmup_steps
    largest = float(kit.lora.weights.abs().max())
    if largest > GROWN:
        return f"weights have grown to {largest:.3g}: the learning rate ({rate:g} now) is too high"
    lost = [micro for micro in found if micro.loss is not None and not math.isfinite(micro.loss)]
    dtype = str(kit.compute.dtype).removeprefix("torch.")
    if lost:
        names = safe_text("; ".join(", ".join(micro.pictures) for micro in lost[:2]), 400)
        return f"the model's output overflows in {dtype} on {names}, all that goes in being finite"
    if any(micro.gradient is False for micro in found):
        return f"the backward pass overflows in {dtype}, loss and inputs being finite"
    after = f" (step {turn.step}, {warm_up} of warm-up)" if warm_up else ""
    return f"all that goes in is finite: a learning rate too high at {rate:g}{after}, or a fault of the hardware"
