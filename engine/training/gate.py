"""A step counts only if its loss, its gradients and what it is to change are finite, decided where they are.

To look at a flag on a GPU the host would have to wait for it, in every step. So the flag goes into the update itself:
where it is set, weights and the optimizer's tensors keep their bits. The host reads loss and flag with the step's
other numbers, up to :data:`AHEAD` steps late, and the flag stays set until then, so that the steps launched meanwhile
change nothing either; what the host counted of them, :meth:`Gate.rewind` takes back.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from engine.training.adafactor import Adafactor
from engine.training.lion import Lion
from engine.training.prodigy import Prodigy

AHEAD = 2
"""Steps that the host may launch before it has read an earlier one's numbers."""


@dataclass(frozen=True)
class Verdict:
    """Whether a step is to change anything, decided on its device.

    Attributes:
        flag: set where it is not.
        held: how many steps in a row were held back up to this one, a float32 scalar.
    """

    flag: Tensor
    held: Tensor


@dataclass(frozen=True)
class _Counted:
    """What an optimizer keeps on the host: settings and counters of its groups, plain values by parameter."""

    groups: list[dict[str, Any]]
    states: list[dict[str, Any] | None]


class Gate:
    """Steps an optimizer unless something is not finite.

    Args:
        optimizer: one of :func:`engine.training.optimizer.build_optimizer`.
        late: whether the device decides; else the host looks before each step.

    Attributes:
        reason: why the host waits in each step although the device could decide; empty where it does not.
    """

    def __init__(self, optimizer: Optimizer, late: bool) -> None:
        self.optimizer = optimizer
        self.reason = _why_waiting(optimizer) if late else ""
        self._late = late and not self.reason
        self._held: Tensor | None = None
        self._before: Tensor | None = None
        self._counted: deque[_Counted] = deque(maxlen=AHEAD + 1)

    def step(self, loss: Tensor, grad_norm: Tensor) -> Tensor:
        """Step, or change nothing if ``loss`` or ``grad_norm`` (scalars) is not finite or an earlier one was not.

        Returns:
            :attr:`Verdict.held`.
        """
        verdict = self.judge(loss, grad_norm)
        self.apply(verdict)
        return verdict.held

    def judge(self, loss: Tensor, grad_norm: Tensor) -> Verdict:
        """The first half of :meth:`step`: look at what was computed, and change nothing."""
        # A sum over values is finite if all of them are, and takes no memory. Weights and states are looked at too:
        # one broken value among the optimizer's shows in no loss until it has broken the weights.
        sums = [tensor.detach().sum().float() for tensor in _changing(self.optimizer)]
        seen = torch.stack([loss.detach().float(), grad_norm.detach().float(), *sums])
        # x - x is 0 for what is finite and not a number for all else.
        broken = (seen - seen).sum().ne(0)
        before = loss.new_zeros(()) if self._held is None else self._held.to(loss.device)
        flag = broken.logical_or(before)
        return Verdict(flag, before + flag)

    def apply(self, verdict: Verdict) -> None:
        """The second half: step unless ``verdict`` holds it back."""
        self._before = self._held
        self._held = verdict.held
        self._counted.append(_counted(self.optimizer))
        if self._late:
            _step_unless(verdict.flag, self.optimizer)
        elif not verdict.flag.item():
            self.optimizer.step()

    def take_back(self) -> None:
        """Undo what the host counted of the newest :meth:`apply`, which broke off; tensors are the caller's."""
        self._held = self._before
        self._count_back(self._counted.pop())

    @property
    def flag(self) -> Tensor | None:
        """Whether the newest step was held back, a scalar on the device; None before the first."""
        return self._held.bool() if self._held is not None else None

    def rewind(self) -> int:
        """Take back what the host counted of steps held back and let steps count again; returns how many there were.

        Waits for the device.
        """
        held = 0 if self._held is None else int(self._held.item())
        self._held = None
        if held:
            self._count_back(self._counted[-min(held, len(self._counted))])
        self._counted.clear()
        return held

    def _count_back(self, counted: _Counted) -> None:
        for group, values in zip(self.optimizer.param_groups, counted.groups, strict=True):
            group.update(values)
        for parameter, plain in zip(_parameters(self.optimizer), counted.states, strict=True):
            if plain is None:
                self.optimizer.state.pop(parameter, None)
            else:
                self.optimizer.state[parameter].update(plain)


def _why_waiting(optimizer: Optimizer) -> str:
    name = type(optimizer).__name__
    if getattr(optimizer, "is_paged", False):
        return f"{name} pages its state, which the host has to see finished in each step"
    return ""


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _changing(optimizer: Optimizer) -> Iterator[Tensor]:
    """The floating-point tensors that a step changes, but for paged ones: they would have to come for a look."""
    for parameter in _parameters(optimizer):
        yield parameter
        for key, value in optimizer.state.get(parameter, {}).items():
            of_step = isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0
            if of_step and not key.startswith("qmap") and not getattr(value, "is_paged", False):
                yield value


def _counted(optimizer: Optimizer) -> _Counted:
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    states: list[dict[str, Any] | None] = []
    for parameter in _parameters(optimizer):
        state = optimizer.state.get(parameter)
        plain = {key: value for key, value in (state or {}).items() if not isinstance(value, Tensor)}
        states.append(plain if state else None)
    return _Counted(groups, states)


@torch.no_grad()
def _step_unless(flag: Tensor, optimizer: Optimizer) -> None:
    """One step that changes no tensor where ``flag`` is set, without looking at it."""
    if isinstance(optimizer, torch.optim.AdamW | Lion | Adafactor | Prodigy):
        looking: Any = optimizer
        # torch's name, for its scaler of 16-bit gradients: the fused kernel itself looks at the flag.
        looking.found_inf = flag.float()
        try:
            optimizer.step()
        finally:
            looking.found_inf = None
    elif hasattr(optimizer, "update_step"):
        _step_bitsandbytes(flag, optimizer)
    else:
        with _undone_where(flag, optimizer, _parameters(optimizer)):
            optimizer.step()


def _step_bitsandbytes(flag: Tensor, optimizer: Any) -> None:
    """What its own ``step`` does, piece by piece, but without waiting for the GPU after each."""
    if not optimizer.initialized:
        optimizer.check_overrides()
        optimizer.initialized = True
    for number, group in enumerate(optimizer.param_groups):
        for index, piece in enumerate(group["params"]):
            if not optimizer.state[piece]:
                optimizer.init_state(group, piece, number, index)
            with _undone_where(flag, optimizer, [piece]):
                optimizer.update_step(group, piece, number, index)


@contextlib.contextmanager
def _undone_where(flag: Tensor, optimizer: Optimizer, parameters: Sequence[Tensor]) -> Iterator[None]:
    """Put tensors back after a step where ``flag`` is set.

    The copies are made at the end of a step, when what the model worked with is free again.
    """
    tensors = [parameter.data for parameter in parameters]
    for parameter in parameters:
        state = optimizer.state.get(parameter, {})
        # bitsandbytes' tables of 8-bit values are the same for ever.
        tensors += [v for key, v in state.items() if isinstance(v, Tensor) and not key.startswith("qmap")]
    copies = [tensor.clone() for tensor in tensors]
    yield
    for tensor, copy in zip(tensors, copies, strict=True):
        torch.where(flag, copy, tensor, out=tensor)
