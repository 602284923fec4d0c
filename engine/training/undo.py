"""Takes a step's update back where it broke off half-way: out of memory between two matrices leaves no trace.

Up to the update a step changes nothing but gradients, which are made anew. In the update most optimizers need memory
in between, so that the first matrices may be changed and the others not. For those the weights and the optimizer's
tensors are copied first: on the device while the passes before have shown that it has the room, else to the host.
torch's fused AdamW asks for nothing once its states are there, and is copied for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.lora.adapter import LoraSet
from engine.memory.meter import peak_bytes
from engine.training.gate import Gate


@dataclass(frozen=True)
class _Copy:
    """A tensor, what it held, and where an optimizer keeps it, should the step have put another one there."""

    tensor: Tensor
    held: Tensor
    state: dict[str, Any] = field(default_factory=dict)
    key: str = ""


@dataclass
class Undo:
    """What is needed to be as before the step.

    Attributes:
        clips: whether norms are clipped after the update, which needs memory too.
    """

    lora: LoraSet
    gate: Gate
    clips: bool = False
    _copies: list[_Copy] = field(default_factory=list)
    _begun: bool = False

    def begin(self) -> None:
        """The update comes next; may run out of memory itself, with nothing changed.

        Raises:
            torch.OutOfMemoryError: there is no room for a copy.
        """
        if self.clips or not _in_one_piece(self.gate.optimizer):
            places = list(self._places())
            home = self._home([tensor for tensor, _, _ in places])
            self._copies = [_Copy(place[0], place[0].to(home, copy=True), *place[1:]) for place in places]
        self._begun = True

    def done(self) -> None:
        """The step stands."""
        self._copies = []
        self._begun = False

    def take_back(self) -> None:
        """Be as before the step; needs no memory."""
        with torch.no_grad():
            if self._begun:
                self.gate.take_back()
            for copy in self._copies:
                copy.tensor.copy_(copy.held)
                copy.state[copy.key] = copy.tensor
            self.lora.refresh()
            self.lora.zero_grad()
        self.done()

    def _places(self) -> Iterator[tuple[Tensor, dict[str, Any], str]]:
        yield self.lora.weights, {}, ""
        for state in self.gate.optimizer.state.values():
            for key, value in state.items():
                # bitsandbytes' tables of 8-bit values are the same for ever.
                if isinstance(value, Tensor) and not key.startswith("qmap"):
                    yield value, state, key

    def _home(self, tensors: list[Tensor]) -> torch.device | None:
        """Where the copies go; None leaves each where its tensor is."""
        device = self.lora.weights.device
        if device.type != "cuda":
            return None
        wanted = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        shown = peak_bytes(device) - torch.cuda.memory_allocated(device)
        return None if wanted <= shown else torch.device("cpu")


def _in_one_piece(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step of this optimizer asks for no memory once it has begun to change tensors."""
    if not isinstance(optimizer, torch.optim.AdamW) or not optimizer.defaults.get("fused"):
        return False
    return all(optimizer.state.get(piece) for group in optimizer.param_groups for piece in group["params"])
