"""Random draws as pure functions of (seed, stage, step), and a stage's resumable state on disk.

Nothing here depends on history: a stage that is stopped and resumed draws what it would have drawn.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.files import atomic_path
from engine.models.pocket.build import constants as c

WORK = Path(os.environ.get("LORAKILN_POCKET_WORK", "build/pocket"))


def key(stage: str, step: int) -> int:
    """A 63-bit seed for one step of one stage."""
    digest = hashlib.sha256(f"{c.SEED} {stage} {step}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(stage: str, step: int) -> torch.Generator:
    """A torch generator for one step of one stage."""
    return torch.Generator().manual_seed(key(stage, step))


def rng(stage: str, step: int) -> random.Random:
    """A Python generator for one step of one stage."""
    return random.Random(key(stage, step))


def save(stage: str, state: dict[str, Any]) -> None:
    """Write a stage's state so that a crash leaves the previous one; tensors, plain values and nests of them."""
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(_plain(state, tensors))
    with atomic_path(WORK / f"{stage}.safetensors") as path:
        save_file(tensors, path, metadata={"state": plain})


def load(stage: str) -> dict[str, Any] | None:
    """A stage's last state, or None."""
    path = WORK / f"{stage}.safetensors"
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        state: dict[str, Any] = _nested(json.loads(file.metadata()["state"]), tensors)
    return state


def _plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON, its tensors put into ``tensors``."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_plain(key, tensors), _plain(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_plain(item, tensors) for item in value]}
    return value


def _nested(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The reverse of :func:`_plain`."""
    if not isinstance(value, dict):
        return value
    ((form, content),) = value.items()
    if form == "tensor":
        return tensors[content]
    if form == "dict":
        return {_nested(key, tensors): _nested(item, tensors) for key, item in content}
    items = [_nested(item, tensors) for item in content]
    return tuple(items) if form == "tuple" else items


class Progress:
    """Says every so often how far a stage is, how long it took and will take; saves on the way."""

    def __init__(self, stage: str, start: int, total: int, save_every_s: float = 60.0) -> None:
        self.stage, self.start, self.total = stage, start, total
        self.began = self.said = self.saved = time.monotonic()
        self.save_every_s = save_every_s

    def due(self, step: int, message: str) -> bool:
        """Report step `step` (done); True when the state should be saved."""
        now = time.monotonic()
        if now - self.said > 15 or step == self.total:
            self.said = now
            pace = (now - self.began) / max(1, step - self.start)
            left = pace * (self.total - step) / 60
            print(f"{self.stage} {step}/{self.total} {message} {pace:.3f} s/step, {left:.0f} min left", flush=True)
        if now - self.saved > self.save_every_s or step == self.total:
            self.saved = now
            return True
        return False
