"""Modulation layers read from the checkpoint anew in every pass, for hosts that cannot keep 6.5 GB of them.

In: the :class:`~engine.models.parts.Part` the transformer was loaded from. Out: layer after layer in the file's
order, so that a pass is one sweep over the file, which the system's page cache answers while it has room.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from engine.errors import ModelFileError
from engine.memory.conditioning import CHUNK
from engine.memory.frozen import Dense, FrozenLinear
from engine.models.modulation import ModulationPlace
from engine.models.parts import Part
from engine.models.weights import PartReader
from engine.text import safe_text


class FileLayers:
    """The modulation layers of a checkpoint, never more than one of them in memory.

    Args:
        part: the checked part of the file; it must hold weight and bias of every place.
        places: which layers.
        dtype: what they compute in.
    """

    def __init__(self, part: Part, places: Sequence[ModulationPlace], dtype: torch.dtype) -> None:
        self._part = part
        self._dtype = dtype
        self._names = sorted((place.name for place in places), key=lambda name: part.tensors[f"{name}.weight"].begin)
        self._stamp = _stamp(part.header.path)

    def layers(self) -> Iterator[tuple[str, FrozenLinear]]:
        """Every layer, in the file's order, in host memory.

        Raises:
            ModelFileError: the file is gone, was changed since it was loaded, or cannot be read.
        """
        path = self._part.header.path
        if _stamp(path) != self._stamp:
            raise ModelFileError(
                "The model file was changed while it was in use",
                f"{safe_text(path, 400)} is not the file that was loaded",
                "Put the file back or start a run with the new one; the run can be resumed from its last state.",
            )
        with PartReader(self._part) as reader:
            for name in self._names:
                weight, bias = (reader.wide(f"{name}.{leaf}", "cpu", self._dtype) for leaf in ("weight", "bias"))
                yield name, Dense(weight, bias)


def why_from_file(places: Sequence[ModulationPlace], width: int, dtype: torch.dtype, free_bytes: int) -> str:
    """Why the host cannot keep the modulation layers, in a sentence for the log; empty if it can.

    Args:
        places: every modulation layer.
        width: D; a layer has D inputs and D outputs for each of its vectors.
        dtype: what they are kept in.
        free_bytes: host memory that may be taken.
    """
    needed = layers_bytes(places, width, dtype)
    if needed <= free_bytes:
        return ""
    return (
        f"The modulation layers stay in the model's file: {needed / 1e9:.1f} GB of host memory wanted, "
        f"{free_bytes / 1e9:.1f} GB free; they are read anew for every {CHUNK} samples"
    )


def layers_bytes(places: Sequence[ModulationPlace], width: int, dtype: torch.dtype) -> int:
    """Memory of all modulation layers, weights and biases."""
    return sum(place.count for place in places) * width * (width + 1) * dtype.itemsize


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when another file takes this one's place."""
    try:
        found = os.stat(path)
    except OSError as err:
        raise ModelFileError(
            "A model file could not be read", f"{safe_text(path, 400)}: {err}", "Put the file back, then resume."
        ) from err
    return found.st_ino, found.st_size, found.st_mtime_ns
