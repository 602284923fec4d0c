"""Random draws that depend on nothing but their name and place.

Each draw is seeded by a hash of (seed, purpose, place), where the place is epoch, step, micro-step and slot as far
as they matter. No generator carries state from one draw to the next, so a resumed run, a sample taken in between
or a changed order of work cannot shift what any later draw gives.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def draw_seed(seed: int, purpose: str, *place: int | str) -> int:
    """A seed of 63 bits for one draw: the head of SHA-256 over the run's seed, the purpose and the place."""
    key = "/".join([str(seed), purpose, *map(str, place)])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def python_random(seed: int, purpose: str, *place: int | str) -> random.Random:
    """A ``random.Random`` for one draw."""
    return random.Random(draw_seed(seed, purpose, *place))


def torch_generator(seed: int, purpose: str, *place: int | str) -> torch.Generator:
    """A CPU ``torch.Generator`` for one draw; noise is drawn on the CPU so that every device sees the same."""
    import torch

    return torch.Generator().manual_seed(draw_seed(seed, purpose, *place))
