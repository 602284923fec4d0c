"""Flat storage: every matrix is a view, gradients land in one buffer, and moving or casting keeps it so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from engine.config import LoraConfig
from engine.lora import flat
from engine.lora.adapter import LoraSet, inject, make_adapters
from engine.lora.flat import ALIGNMENT, lay_out
from engine.lora.targets import Target

CPU = torch.device("cpu")
TARGETS = [
    Target("a", "single", 12, 10, 4, 2.0),
    Target("b", "double", 300, 20, 4, 4.0),
    Target("c", "single", 12, 10, 4, 1.0),
    Target("d", "double", 10, 12, 2, 2.0),
]


def _set() -> LoraSet:
    lora = make_adapters(TARGETS, LoraConfig(), 5, CPU)
    generator = torch.Generator().manual_seed(1)
    for matrix in lora.parameters():
        nn.init.normal_(matrix, generator=generator)
    return lora


def _within(view: torch.Tensor, whole: torch.Tensor) -> bool:
    return view.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()


def test_matrices_of_one_kind_lie_side_by_side_and_none_overlap() -> None:
    spans, end = lay_out([(4, 12), (4, 300), (4, 12), (2, 10)], ["x", "y", "x", "z"], 512)
    assert [span.begin for span in spans] == [512, 1024, 768, 2304]
    assert end == 2560 and all(span.begin % ALIGNMENT == 0 for span in spans)


def test_every_matrix_and_gradient_is_a_view() -> None:
    lora = _set()
    for matrix in lora.parameters():
        assert matrix.is_leaf and matrix.requires_grad and matrix.grad is not None
        assert _within(matrix, lora.weights) and _within(matrix.grad, lora.gradients)
        assert matrix.data_ptr() % 512 == lora.weights.data_ptr() % 512
    downs, ups = lora.flat_groups()
    assert sum(piece.numel() for piece in (*downs, *ups)) == lora.weights.numel()
    inside = {id(piece): piece.data_ptr() for piece in (*downs, *ups)}
    assert lora.adapters["a"].down.data_ptr() == inside[id(downs[0])]
    assert lora.adapters["a"].up.data_ptr() == inside[id(ups[0])]


def test_backward_adds_into_the_flat_gradient_and_zeroing_is_one_operation() -> None:
    lora = _set()
    for turn in (1, 2):
        sum((number * matrix.sum() for number, matrix in enumerate(lora.parameters(), 1)), torch.zeros(())).backward()
        wanted = sum(number * matrix.numel() for number, matrix in enumerate(lora.parameters(), 1))
        assert lora.gradients.sum().item() == turn * wanted
    lora.zero_grad()
    assert not lora.gradients.any()
    assert all(matrix.grad is not None and not matrix.grad.any() for matrix in lora.parameters())


def test_pieces_cover_the_buffer_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "PIECE", 512)
    lora = _set()
    downs, ups = lora.flat_groups()
    assert [piece.numel() for piece in downs] == [512, 512, 512, 512]
    assert torch.equal(torch.cat([*downs, *ups]), lora.weights)
    ups[0].data.fill_(3.0)
    assert bool((lora.adapters["a"].up == 3.0).all())


def test_stacks_are_the_matrices_of_a_kind() -> None:
    lora = make_adapters([TARGETS[0], TARGETS[1], replace(TARGETS[2], alpha=2.0)], LoraConfig(), 5, CPU)
    downs, ups = lora.stacked_groups()
    assert [tuple(stack.shape) for stack in (*downs, *ups)] == [(2, 4, 12), (1, 4, 300), (2, 10, 4), (1, 20, 4)]
    assert torch.equal(downs[0], torch.stack([lora.adapters["a"].down, lora.adapters["c"].down]))
    assert downs[0].grad is not None and _within(downs[0].grad, lora.gradients)


def test_the_compute_copy_holds_what_the_matrices_held_at_the_last_refresh() -> None:
    lora = _set()
    adapter = lora.adapters["c"]
    with torch.inference_mode():
        down, up = adapter.compute(torch.bfloat16)
    assert not down.requires_grad and down.shape == (4, 12) and up.shape == (10, 4)
    before = down.clone()
    with torch.no_grad():
        adapter.down.mul_(2.0)
    assert torch.equal(down, before)
    lora.refresh()
    assert torch.equal(down, adapter.down.to(torch.bfloat16)) and torch.equal(up, adapter.up.to(torch.bfloat16))
    again, _ = adapter.compute(torch.bfloat16)
    assert again.data_ptr() == down.data_ptr()
    plain, _ = adapter.compute(torch.float32)
    assert plain.data_ptr() == adapter.down.data_ptr() and not plain.requires_grad


def test_loading_and_limiting_refresh_by_themselves() -> None:
    lora = _set()
    up = lora.adapters["b"].compute(torch.bfloat16)[1]
    state = {name: tensor + 1.0 for name, tensor in lora.state().items()}
    lora.load_state(state)
    assert torch.equal(up, state["b.lora_up.weight"].to(torch.bfloat16))
    lora.clip_norms(0.5)
    assert torch.equal(up, lora.adapters["b"].up.to(torch.bfloat16))


def test_moving_keeps_parameters_values_and_views() -> None:
    lora = _set()
    before, ids = lora.state(), [id(matrix) for matrix in lora.parameters()]
    pieces, place = lora.flat_groups(), lora.weights.data_ptr()
    old = lora.adapters["a"].compute(torch.bfloat16)[0]
    lora.move(CPU)
    assert lora.weights.data_ptr() != place
    assert all(torch.equal(tensor, before[name]) for name, tensor in lora.state().items())
    assert all(_within(piece, lora.weights) for group in pieces for piece in group)
    assert not _within(lora.adapters["a"].compute(torch.bfloat16)[0], old)
    assert [id(matrix) for matrix in lora.parameters()] == ids
    assert all(_within(matrix, lora.weights) for matrix in lora.parameters())
    (lora.adapters["a"].down.sum() * 2).backward()
    assert lora.gradients.sum().item() == 2 * 48


def test_casting_the_transformer_leaves_the_matrices_in_flat_storage() -> None:
    model = nn.ModuleDict({"a": nn.Linear(12, 10)})
    lora = inject(model, TARGETS[:1], LoraConfig(), 0)
    model.to(torch.bfloat16)
    assert lora.modules["a"].base.weight.dtype == torch.bfloat16
    assert lora.adapters["a"].down.dtype == torch.float32 and _within(lora.adapters["a"].down, lora.weights)


def test_adapters_are_the_same_with_and_without_a_transformer() -> None:
    model = nn.ModuleDict({"a": nn.Linear(12, 10)})
    injected, alone = inject(model, TARGETS[:1], LoraConfig(), 7), make_adapters(TARGETS[:1], LoraConfig(), 7, CPU)
    assert torch.equal(injected.adapters["a"].down, alone.adapters["a"].down)
    assert alone.modules == {} and injected.modules["a"].adapter is injected.adapters["a"]
