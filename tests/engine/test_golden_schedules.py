"""Sampling schedules equal black-forest-labs/flux, for every size and number of steps in the golden file."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from engine.training.sampling import flow_schedule


def test_golden_schedules(golden: Callable[[str], list[Path]]) -> None:
    seen = 0
    for path in golden("flux_schedules*.json"):
        for name, expected in json.loads(path.read_text())["schedules"].items():
            size, steps = name.split("@")
            height, width = (int(side) for side in size.split("x"))
            tokens = (height // 16) * (width // 16)
            assert flow_schedule(int(steps), tokens, shifted=True) == pytest.approx(expected, abs=1e-7), name
            seen += 1
    assert seen >= 15


@pytest.mark.parametrize("steps", [1, 4, 7, 28])
def test_unshifted_is_linear(steps: int) -> None:
    times = flow_schedule(steps, 4096, shifted=False)
    assert times == pytest.approx([1 - i / steps for i in range(steps + 1)], abs=1e-6)


def test_ends_are_exact_and_levels_fall() -> None:
    for tokens in (16, 256, 1024, 4096, 65536):
        times = flow_schedule(50, tokens, shifted=True)
        assert times[0] == 1.0
        assert times[-1] == 0.0
        assert all(a > b for a, b in pairwise(times))


def test_no_steps_is_an_error() -> None:
    with pytest.raises(ValueError):
        flow_schedule(0, 256, shifted=True)
