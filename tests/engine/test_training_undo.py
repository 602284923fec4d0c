"""An update that runs out of memory anywhere in it is taken back to the last bit, and made again the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scarce import Scarce
from test_training_gate import NAMES, Course

from engine.training.optimizer import clip_gradients
from engine.training.undo import Undo


class Update(Course):
    """A course whose updates are taken back where they break off."""

    def __init__(self, name: str, late: bool, clips: bool, **settings: Any) -> None:
        super().__init__(name, late, **settings)
        self.clips = clips
        self.undo = Undo(self.lora, self.gate, clips)

    def update(self, number: int) -> None:
        """A step as the engine makes it."""
        generator = torch.Generator().manual_seed(number)
        self.lora.gradients.zero_()
        for matrix in self.lora.parameters():
            assert matrix.grad is not None
            matrix.grad.copy_(torch.randn(matrix.shape, generator=generator))
        verdict = self.gate.judge(torch.tensor(1.0), clip_gradients(self.lora.gradients, 1.0))
        self.undo.begin()
        self.gate.apply(verdict)
        if self.clips:
            self.lora.clip_norms(0.4, self.gate.flag)
        else:
            self.lora.refresh()
        self.lora.zero_grad()
        self.undo.done()

    def whole(self) -> tuple[dict[str, torch.Tensor], Any, Any]:
        """Everything that a step may change."""
        tensors, plain = self.state()
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        return {name: tensor.clone() for name, tensor in tensors.items()}, plain, repr(groups)


def same(one: Any, two: Any) -> bool:
    tensors, others = one[0], two[0]
    equal = all(torch.equal(tensors[name], others[name]) for name in tensors)
    return tensors.keys() == others.keys() and equal and one[1:] == two[1:]


CASES = [
    *((name, True, "paged" not in name) for name in NAMES),  # clipping comes last and needs memory, too
    *((name, False, True) for name in ("adamw", "adamw8bit", "lion")),
    ("adamw", False, False),
]


@pytest.mark.parametrize(("name", "clips", "late"), CASES)
def test_every_place_of_an_update(name, clips, late):
    wanted, found = Update(name, late, clips), Update(name, late, clips)
    for number in (1, 2):
        wanted.update(number)
        before = found.whole()
        place = 0
        while True:
            place += 1
            try:
                with Scarce(at=(place,)) as mode:
                    found.update(number)
                break
            except torch.OutOfMemoryError:
                found.undo.take_back()
            assert same(found.whole(), before), f"place {place} of step {number} left a trace"
            assert not found.lora.gradients.any()
        assert place == mode.count + 1 > 5
        assert same(found.whole(), wanted.whole())


def test_groups_of_their_own_rates():
    wanted, found = (Update("adamw", True, False, lora_plus_ratio=4.0) for _ in range(2))
    before = found.whole()
    wanted.update(1)
    for place in range(1, 200):
        try:
            with Scarce(at=(place,)):
                found.update(1)
            break
        except torch.OutOfMemoryError:
            found.undo.take_back()
        assert same(found.whole(), before)
    assert same(found.whole(), wanted.whole())


def test_what_needs_no_copy_gets_none():
    course = Update("adamw", True, False)
    course.update(1)
    with Scarce() as mode:
        course.update(2)
    assert mode.peak < course.lora.weights.nbytes  # no more than what is drawn and measured here
