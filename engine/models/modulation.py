"""Shift, scale and gate of every block as one table of vectors: what the modulation layers give for a sample.

A FLUX transformer with d double and s single blocks has ``12 d + 3 s + 2`` such vectors of its width, 344 at full
size, in the order of the blocks: image then text of every double block (shift, scale, gate of attention, then of
the MLP), then every single block (shift, scale, gate), then the final layer's shift and scale. They depend on
timestep, guidance and pooled text alone, so they can be computed before the step that needs them.

Shape suffixes: B samples, V vectors, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Modulation:
    """What a forward pass needs of the modulation layers.

    Attributes:
        rows: (B, V, D), the outputs of the frozen layers, in the model's dtype.
        vec: (B, D), the conditioning vector, for adapters on modulation layers.
    """

    rows: Tensor
    vec: Tensor


@dataclass(frozen=True)
class ModulationPlace:
    """One modulation layer: its module's name in the released layout and where its vectors stand in the table."""

    name: str
    first: int
    count: int


def modulation_places(depth: int, depth_single: int) -> tuple[ModulationPlace, ...]:
    """Every modulation layer of a transformer with these many blocks, in the order of the table."""
    sizes = [(f"double_blocks.{n}.{stream}_mod.lin", 6) for n in range(depth) for stream in ("img", "txt")]
    sizes += [(f"single_blocks.{n}.modulation.lin", 3) for n in range(depth_single)]
    sizes.append(("final_layer.adaLN_modulation.1", 2))
    places, first = [], 0
    for name, count in sizes:
        places.append(ModulationPlace(name, first, count))
        first += count
    return tuple(places)
