"""Device and precisions of a run: what two settings mean together, and what a LoRA file says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pocket import pocket_config

from engine.training.device import compute_for, wanted_dtype


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threads, fill = torch.get_num_threads(), torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill


@pytest.mark.parametrize(
    ("dtype", "mixed", "found", "precision", "said"),
    [
        ("auto", "auto", torch.float32, "no", False),
        ("auto", "bf16", torch.bfloat16, "bf16", False),
        ("auto", "no", torch.float32, "no", False),
        ("bfloat16", "auto", torch.bfloat16, "bf16", False),
        ("bfloat16", "bf16", torch.bfloat16, "bf16", False),
        ("bfloat16", "no", torch.bfloat16, "bf16", True),
        ("float32", "bf16", torch.float32, "no", True),
        ("float32", "no", torch.float32, "no", False),
    ],
)
def test_precision_on_a_cpu(
    dtype: str, mixed: str, found: torch.dtype, precision: str, said: bool, tmp_path: Path
) -> None:
    training = {"device": "cpu", "threads": 1, "mixed_precision": mixed}
    config = pocket_config(tmp_path, model={"dtype": dtype}, training=training)
    compute = compute_for(config)
    assert (compute.dtype, compute.precision) == (found, precision)
    assert ("no effect" in compute.remark) is said


def test_on_a_gpu_auto_is_left_to_the_card() -> None:
    assert wanted_dtype("auto", "auto") == ("auto", "")


def test_a_deterministic_run_does_not_fill_memory(tmp_path: Path) -> None:
    compute_for(pocket_config(tmp_path, training={"device": "cpu", "threads": 1, "deterministic": True}))
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
