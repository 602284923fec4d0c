"""A frozen linear joined with its adapter: values, gradients, dropout, and what leaves the adapter out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from flux_steps import error
from torch import Tensor
from torch.nn import functional as F

from engine.blocks.joined import adapter_backward, drop_factors, joined, joined_again, joined_backward, lora_of
from engine.config import LoraConfig
from engine.lora.adapter import Adapter, LoraSet, make_adapters
from engine.lora.targets import Target
from engine.memory.frozen import Dense

TARGET = Target("single_blocks.0.linear1", "single", 12, 20, 4, 2.0)


def adapter_of(**settings: Any) -> tuple[LoraSet, Adapter]:
    torch.manual_seed(2)
    lora = make_adapters([TARGET], LoraConfig(rank=4, **settings), 5, torch.device("cpu"))
    adapter = lora.adapters[TARGET.name]
    with torch.no_grad():
        adapter.up.normal_()
    lora.refresh()
    return lora, adapter


def use(adapter: Adapter, training: bool = True) -> Any:
    return lora_of(adapter, 2, 5, torch.float32, torch.device("cpu"), training)


@pytest.mark.parametrize(
    "dropout", [{}, {"dropout": 0.3}, {"rank_dropout": 0.4}, {"dropout": 0.3, "rank_dropout": 0.4}]
)
def test_values_and_gradients_equal_autograd(dropout: dict[str, float]) -> None:
    _, adapter = adapter_of(**dropout)
    linear = Dense(torch.randn(20, 12), torch.randn(20))
    x, grad = torch.randn(10, 12), torch.randn(10, 20)
    lora = use(adapter)
    assert (lora.drop is None) == (not dropout)

    leaf = x.clone().requires_grad_()
    drop = 1.0 if lora.drop is None else lora.drop
    hidden = F.linear(leaf, adapter.down) * drop
    wanted = F.linear(leaf, linear.weight, linear.bias) + F.linear(hidden, adapter.up) * 0.5
    wanted.backward(grad)

    out, kept = joined(x, linear, lora)
    dx, grads = joined_backward(grad, x, linear, lora, kept)
    assert grads is not None
    assert error(out, wanted.detach()) < 1e-6
    assert error(dx, leaf.grad) < 1e-6
    assert error(grads.down, adapter.down.grad) < 1e-6
    assert error(grads.up, adapter.up.grad) < 1e-6
    assert torch.equal(joined_again(x, linear, lora, kept), out)
    alone = adapter_backward(grad, x, lora, kept)
    assert alone is not None and torch.equal(alone.down, grads.down)


def test_dropout_keeps_the_expectation_and_whole_ranks() -> None:
    _, adapter = adapter_of(dropout=0.25)
    factors = drop_factors(adapter, 50, 40, torch.float32, torch.device("cpu"))
    assert factors is not None and factors.shape == (2000, 4)
    assert float(factors.mean()) == pytest.approx(1.0, abs=0.03)
    assert sorted(factors.unique().tolist()) == pytest.approx([0.0, 4 / 3])
    _, adapter = adapter_of(rank_dropout=0.5)
    ranks = drop_factors(adapter, 500, 3, torch.float32, torch.device("cpu"))
    assert ranks is not None
    by_sample = ranks.view(500, 3, 4)
    assert torch.equal(by_sample, by_sample[:, :1].expand_as(by_sample)), "one draw a sample and rank"
    assert float(ranks.mean()) == pytest.approx(1.0, abs=0.1)


def _off(lora: LoraSet, adapter: Adapter) -> Any:
    with lora.disabled():
        return use(adapter)


@pytest.mark.parametrize(
    ("settings", "ask"),
    [
        ({}, _off),
        ({"module_dropout": 0.999999}, lambda lora, adapter: use(adapter)),
        ({}, lambda lora, adapter: use(None)),  # type: ignore[arg-type]
    ],
    ids=["off", "module dropout", "none"],
)
def test_the_base_alone(settings: dict[str, float], ask: Callable[[LoraSet, Adapter], Any]) -> None:
    lora = ask(*adapter_of(**settings))
    assert lora is None
    linear = Dense(torch.randn(20, 12))
    x, grad = torch.randn(10, 12), torch.randn(10, 20)
    out, kept = joined(x, linear, lora)
    assert kept is None and torch.equal(out, linear.forward(x))
    dx, grads = joined_backward(grad, x, linear, lora, kept)
    assert grads is None and torch.equal(dx, linear.input_grad(grad))


def test_nothing_is_dropped_outside_training() -> None:
    _, adapter = adapter_of(dropout=0.5, rank_dropout=0.5, module_dropout=0.9)
    lora = use(adapter, training=False)
    assert lora is not None and lora.drop is None


def test_strength_scales_the_update() -> None:
    lora, adapter = adapter_of()
    with lora.strength(0.25):
        used = use(adapter)
    assert used.scale == 0.5 * 0.25


def test_gradients_reach_matrices_of_any_precision(dtype: torch.dtype = torch.bfloat16) -> None:
    _, adapter = adapter_of()
    used = lora_of(adapter, 2, 5, dtype, torch.device("cpu"), True)
    assert used is not None
    linear = Dense(torch.randn(20, 12, dtype=dtype))
    x: Tensor = torch.randn(10, 12, dtype=dtype)
    out, kept = joined(x, linear, used)
    assert out.dtype == dtype and kept is not None and kept.dtype == dtype
