"""Learning rate curves against transformers' schedulers."""

from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

from engine.config import RunConfig, ScheduleConfig
from engine.training.schedule import apply_factor, learning_rate, lr_factor, set_learning_rate

TOTAL = 40


def _theirs(name: str, warmup: int, **settings: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = get_scheduler(name, optimizer, warmup, TOTAL, scheduler_specific_kwargs=settings or None)
    values = []
    for _ in range(TOTAL + 1):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


def _ours(**settings: object) -> list[float]:
    config = ScheduleConfig.model_validate(settings)
    return [learning_rate(step, TOTAL, config, 0.5) for step in range(TOTAL + 1)]


@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_curves_equal_transformers(warmup: int) -> None:
    ours = lambda **settings: _ours(warmup_steps=warmup, **settings)
    assert ours(name="constant") == pytest.approx(_theirs("constant_with_warmup", warmup))
    assert ours(name="linear") == pytest.approx(_theirs("linear", warmup))
    assert ours(name="cosine") == pytest.approx(_theirs("cosine", warmup), abs=1e-12)
    theirs = _theirs("cosine_with_restarts", warmup, num_cycles=3)
    assert ours(name="cosine_with_restarts", cycles=3) == pytest.approx(theirs, abs=1e-12)
    theirs = _theirs("polynomial", warmup, lr_end=0.05, power=2.0)
    assert ours(name="polynomial", power=2.0, min_ratio=0.1) == pytest.approx(theirs)
    theirs = _theirs("cosine_with_min_lr", warmup, min_lr_rate=0.2)
    assert ours(name="cosine", min_ratio=0.2) == pytest.approx(theirs)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"])
def test_curves_stay_between_min_ratio_and_one(name: str) -> None:
    config = ScheduleConfig.model_validate({"name": name, "min_ratio": 0.3, "cycles": 2})
    factors = [lr_factor(step, TOTAL, config) for step in range(2 * TOTAL)]
    assert factors[0] == 1.0
    assert all(0.3 <= factor <= 1.0 for factor in factors)


@pytest.mark.parametrize("total", [0, 1, 5])
def test_a_warm_up_longer_than_the_run_just_rises(total: int) -> None:
    config = ScheduleConfig(name="cosine", warmup_steps=10)
    factors = [lr_factor(step, total, config) for step in range(10)]
    assert factors == [step / 10 for step in range(10)]


def test_apply_multiplies_every_groups_own_rate() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.1, 1.6)]
    optimizer = torch.optim.SGD(groups)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    apply_factor(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.8]
    config = RunConfig.model_validate(
        {
            "name": "x",
            "model": dict.fromkeys(("transformer", "autoencoder", "clip_l", "t5"), "f"),
            "dataset": {"folders": [{"path": "d"}]},
            "optimizer": {"learning_rate": 0.1},
            "schedule": {"name": "linear", "warmup_steps": 2},
        }
    )
    assert set_learning_rate(optimizer, config, 1, 10) == pytest.approx(0.05)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.8])
