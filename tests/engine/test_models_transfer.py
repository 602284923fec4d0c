"""Copies to a GPU go through pinned memory and nobody waits for them; elsewhere nothing changes."""

from __future__ import annotations

from typing import Any, cast

import torch

from engine.models.flux_text import TextEmbeds
from engine.models.transfer import to_device


class Copied:
    """Stands for a tensor in host memory and writes down how it travels."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.way: list[Any] = []

    def pin_memory(self) -> Copied:
        self.way.append("pinned")
        return self

    def to(self, device: torch.device, non_blocking: bool = False) -> Copied:
        self.way.append((str(device), non_blocking))
        return self


def test_a_gpu_gets_its_copy_from_pinned_memory() -> None:
    for device in ("cuda:0", torch.device("cuda", 0)):
        tensor = Copied()
        to_device(cast(Any, tensor), device)
        assert tensor.way == ["pinned", ("cuda:0", True)]


def test_what_is_on_a_gpu_already_is_not_pinned() -> None:
    tensor = Copied()
    tensor.device = torch.device("cuda", 0)
    to_device(cast(Any, tensor), "cuda:0")
    assert "pinned" not in tensor.way


def test_a_cpu_gets_the_tensor_itself() -> None:
    tensor = torch.randn(3)
    assert to_device(tensor, "cpu") is tensor


def test_text_travels_the_same_way() -> None:
    parts = [Copied() for _ in range(3)]
    TextEmbeds(*cast(Any, parts)).to("cuda:0")
    assert all(part.way == ["pinned", ("cuda:0", True)] for part in parts)
