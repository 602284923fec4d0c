"""The fast transformer gives the plain one's velocity and LoRA gradients, whatever it keeps between its passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from flux_steps import SMALL, error, make_step, worst
from torch import Tensor

from engine.blocks.pieces import EAGER
from engine.blocks.transformer import LeanFlux
from engine.memory.frozen import BlockWeights, Resident, block_tensors, with_block_tensors

MODES = ("none", "attention", "full", "offload")


class Shelf:
    """Takes block inputs away by copying them."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def put(self, x: Tensor) -> list[Tensor]:
        return [x.clone()]

    def get(self, handle: list[Tensor]) -> Tensor:
        self.taken.append(handle[0].numel())
        return handle.pop()


CASES: dict[str, dict[str, Any]] = {
    "dev": {},
    "schnell": {"params": replace(SMALL, guidance_embed=False)},
    "batch 2": {"batch": 2},
    "batch 3, masked text": {"batch": 3, "masked": True},
    "no qkv bias": {"params": replace(SMALL, qkv_bias=False)},
    "some blocks": {"double_blocks": "1", "single_blocks": "0,2"},
    "attention alone": {"include": ("attn",)},
    "modulation too": {"targets": "all", "batch": 2},
    "ranks by kind": {"ranks": {"single": 2, "img_mod": 3, "txt_attn": 5}, "batch": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_velocity_and_gradients_equal_the_plain_ones(case: str) -> None:
    step = make_step(**CASES[case])
    out, grads = step.run(step.model)
    lean_out, lean_grads = step.run(LeanFlux.from_plain(step.model, step.lora))
    assert error(lean_out, out) < 2e-6
    assert worst(lean_grads, grads) < 1e-5


@pytest.mark.parametrize("case", ["batch 3, masked text", "modulation too", "some blocks"])
def test_what_is_kept_changes_no_bit(case: str) -> None:
    step = make_step(**CASES[case])
    shelf = Shelf()
    wanted = step.run(LeanFlux.from_plain(step.model, step.lora, checkpointing="none"))
    for mode in MODES[1:]:
        out, grads = step.run(LeanFlux.from_plain(step.model, step.lora, checkpointing=mode, offload=shelf))
        assert torch.equal(out, wanted[0]), mode
        assert all(torch.equal(one, other) for one, other in zip(grads, wanted[1], strict=True)), mode
    assert shelf.taken


def test_in_bfloat16_the_error_is_smaller_than_the_plain_models() -> None:
    rounded, exact = make_step(std=0.05, dtype=torch.bfloat16), make_step(std=0.05)
    with torch.no_grad():
        for wide, narrow in zip(exact.model.parameters(), rounded.model.parameters(), strict=True):
            wide.copy_(narrow)
    found = {}
    with torch.autocast("cpu", torch.bfloat16):
        found["plain"] = rounded.run(rounded.model)
    found["lean"] = rounded.run(LeanFlux.from_plain(rounded.model, rounded.lora))
    out, grads = exact.run(exact.model)
    errors = {name: (error(o, out), error(joined(g), joined(grads))) for name, (o, g) in found.items()}
    assert found["lean"][0].dtype == torch.bfloat16
    assert errors["lean"][0] < errors["plain"][0] < 0.01
    assert errors["lean"][1] < errors["plain"][1] < 0.015


def joined(grads: list[Tensor]) -> Tensor:
    return torch.cat([grad.flatten() for grad in grads])


def test_gelu_and_its_gradient_may_come_from_one_pass() -> None:
    step = make_step(batch=2)
    lean = LeanFlux.from_plain(step.model, step.lora)
    out, grads = step.run(lean)
    calls = []

    def both(dy: Tensor, m: Tensor, active: Tensor, grad: Tensor) -> None:
        assert active.is_contiguous()
        calls.append(m.shape)
        EAGER.gelu(m, active)
        EAGER.gelu_backward(dy, m, grad)

    lean.pieces = replace(EAGER, gelu_both=both)
    again, grads_again = step.run(lean)
    assert torch.equal(out, again) and worst(grads_again, grads) == 0
    assert len(calls) == 2 * 2 + 3


def test_autocast_changes_nothing() -> None:
    step = make_step()
    lean = LeanFlux.from_plain(step.model, step.lora)
    out, grads = step.run(lean)
    with torch.autocast("cpu", torch.bfloat16):
        again, grads_again = step.run(lean)
    assert torch.equal(out, again)
    assert all(torch.equal(one, other) for one, other in zip(grads, grads_again, strict=True))


def test_without_gradient_nothing_is_kept() -> None:
    step = make_step(batch=2, masked=True, targets="all")
    lean = LeanFlux.from_plain(step.model, step.lora, checkpointing="none")
    wanted, _ = step.run(lean)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x), torch.no_grad():
        out = lean(**step.arguments)
    assert torch.equal(out, wanted) and out.grad_fn is None
    assert not kept


def test_a_block_before_the_first_adapter_keeps_nothing() -> None:
    step = make_step(double_blocks="none", single_blocks="2")
    lean = LeanFlux.from_plain(step.model, step.lora, checkpointing="full")
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        lean(**step.arguments)
    width = step.model.params.hidden_size
    inputs = [x for x in kept if x is not None and x.dim() == 3 and x.shape[1] > 12 and x.shape[-1] == width]
    assert len(inputs) == 2, "the adapted block's input and the last layer's"


def test_adapters_switched_off_are_the_base() -> None:
    step = make_step(targets="all")
    lean = LeanFlux.from_plain(step.model, step.lora)
    with step.lora.disabled():
        out = lean(**step.arguments)
        wanted = step.model(**step.arguments)
    assert not out.requires_grad
    assert error(out, wanted) < 2e-6
    with step.lora.strength(0.5):
        assert error(lean(**step.arguments).detach(), step.model(**step.arguments).detach()) < 2e-6


def test_dropout_is_drawn_once_a_step_and_only_in_training() -> None:
    step = make_step(dropout=0.2, rank_dropout=0.2, module_dropout=0.2)
    lean = LeanFlux.from_plain(step.model, step.lora)
    found = []
    for mode in ("none", "attention", "full"):
        lean.checkpointing = mode
        torch.manual_seed(11)
        found.append(step.run(lean))
    for out, grads in found[1:]:
        assert torch.equal(out, found[0][0])
        assert all(torch.equal(one, other) for one, other in zip(grads, found[0][1], strict=True))
    lean.eval()
    step.model.eval()
    with torch.no_grad():
        assert error(lean(**step.arguments), step.model(**step.arguments)) < 2e-6
        assert error(found[0][0], lean(**step.arguments)) > 1e-3


def test_gradients_add_up_over_steps() -> None:
    step = make_step()
    lean = LeanFlux.from_plain(step.model, step.lora)
    _, once = step.run(lean)
    lean(**step.arguments).backward(step.grad)
    twice = [matrix.grad for matrix in step.lora.parameters()]
    assert worst([grad / 2 for grad in twice], once) < 1e-7


def test_modulation_may_come_ready_made() -> None:
    step = make_step(batch=2)
    lean = LeanFlux.from_plain(step.model, step.lora)
    given = {key: step.arguments[key] for key in ("timesteps", "y", "guidance")}
    modulation = lean.conditioning(**given)
    wanted = lean(**step.arguments)
    unread = {"timesteps": torch.zeros(0), "y": torch.zeros(0), "guidance": None}
    assert torch.equal(lean(**(step.arguments | unread), modulation=modulation), wanted)


class Loan:
    """Blocks' weights lent out one at a time: their memory holds nonsense outside."""

    def __init__(self, blocks: Resident) -> None:
        self.blocks = blocks
        self.lent: list[int] = []
        self.expected: list[bool] = []

    def expect(self, backward: bool) -> None:
        self.expected.append(backward)

    @contextmanager
    def use(self, block: int) -> Iterator[BlockWeights]:
        weights = self.blocks.blocks[block]
        copies = {name: tensor.clone() for name, tensor in block_tensors(weights).items()}
        self.lent.append(block)
        yield with_block_tensors(weights, copies)
        for tensor in copies.values():
            tensor.fill_(torch.nan)


def test_weights_are_borrowed_for_each_pass() -> None:
    step = make_step()
    lean = LeanFlux.from_plain(step.model, step.lora)
    wanted = step.run(lean)
    assert isinstance(lean.source, Resident)
    loan = Loan(lean.source)
    lean.source = loan
    out, grads = step.run(lean)
    assert torch.equal(out, wanted[0])
    assert all(torch.equal(one, other) for one, other in zip(grads, wanted[1], strict=True))
    assert loan.lent == [0, 1, 2, 3, 4, 4, 3, 2, 1, 0]
    assert loan.expected == [True]


def test_offloading_needs_a_place() -> None:
    step = make_step()
    with pytest.raises(ValueError, match="needs an offload"):
        LeanFlux.from_plain(step.model, checkpointing="offload")
