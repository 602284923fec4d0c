"""One optimizer step: micro-batches forward and backward, clipping, the update; all of it, or nothing that stays.

What leads to a step (commands, saves, the order of pictures) is the trainer's, what follows from memory running out
in it is :mod:`engine.training.ladder`'s.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.batches import Turn
from engine.config import RunConfig
from engine.training.gate import Gate
from engine.training.kit import Kit
from engine.training.ledger import Told
from engine.training.nonfinite import Look
from engine.training.optimizer import clip_gradients
from engine.training.schedule import set_learning_rate
from engine.training.stopwatch import Stopwatch, to_host
from engine.training.undo import Undo


class Stepper:
    """Makes steps with a kit.

    Attributes:
        gate: holds back steps whose numbers are not finite.
    """

    def __init__(self, config: RunConfig, kit: Kit) -> None:
        self.config = config
        self.kit = kit
        self.gate = Gate(kit.optimizer, late=kit.compute.device.type != "cpu")
        self._undo = Undo(kit.lora, self.gate, clips=bool(config.lora.max_norm))

    def step(self, turn: Turn, look: Look | None = None) -> Told:
        """Make the step that ``turn`` names, over this process's micro-batches; ``look`` watches each of them.

        Where the loss, the gradient norm, a weight or a state is not finite, nothing is changed; the numbers say so.

        Raises:
            torch.OutOfMemoryError: memory ran out; :meth:`take_back` leaves things as they were.
        """
        kit = self.kit
        compute, order, watch = kit.compute, kit.prepared.order, Stopwatch(kit.compute.device)
        micros, tokens = order.step(turn), 0
        kit.meter.begin()
        kit.lean.traffic.take()  # what sampling and calibration moved since the last step is not this one's
        lr = set_learning_rate(kit.optimizer, self.config, turn.step - 1, order.total_steps)
        # The step's loss, then each sample's own, in the order of the micro-batches.
        total = torch.zeros(1 + sum(len(micro.items) for micro in micros), device=compute.device)
        at = 1
        for number, micro in enumerate(micros):
            if number % compute.processes != compute.rank:
                at += len(micro.items)
                continue
            inputs = kit.objective.inputs(micro, turn.step, number)
            watch.mark("data")
            for part in inputs.parts(kit.micro_batch):
                loss, each = kit.learn(part, len(micros), watch)
                total[0] += loss
                total[at : at + len(each)] = each
                at += len(each)
                if look is not None:
                    look.after(number, loss, kit.lora.gradients)
            tokens += inputs.tokens(kit.base.family.patch)
        total = compute.sum(total)
        names = "; ".join(micro.names for micro in micros)
        numbers = self._update(total[0], total[1:])
        watch.mark("optimizer")
        late, spent = compute.device.type != "cpu", kit.lean.traffic.take()
        return Told(turn, names, numbers, watch, lr, late, self.gate.rewind, tokens, spent)

    def _update(self, loss: Tensor, each: Tensor) -> Tensor:
        """Clip and step; returns what :meth:`apply` does."""
        lora, settings = self.kit.lora, self.config
        self.kit.compute.sum_gradients(lora.gradients)
        grad_norm = clip_gradients(lora.gradients, settings.optimizer.max_grad_norm)
        return self.apply(loss, grad_norm, each)

    def apply(self, loss: Tensor, grad_norm: Tensor, each: Tensor | None = None) -> Tensor:
        """Step by the gradients as they stand, unless something in it is not finite.

        Args:
            grad_norm: the gradients' norm before clipping.
            each: the samples' own losses (N,).

        Returns:
            On its way to the host, the loss, the norm, how many steps were held back up to this, and ``each``.
        """
        lora, settings = self.kit.lora, self.config
        verdict = self.gate.judge(loss, grad_norm)
        numbers = to_host(loss, grad_norm, verdict.held, *([] if each is None else [each]))
        self._undo.begin()
        self.gate.apply(verdict)
        if settings.lora.max_norm:
            lora.clip_norms(settings.lora.max_norm, self.gate.flag)
        else:
            lora.refresh()
        lora.zero_grad()
        self._undo.done()
        return numbers

    def take_back(self) -> None:
        """Leave no trace of a step that broke off; needs no memory."""
        self._undo.take_back()
