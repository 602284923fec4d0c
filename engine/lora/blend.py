"""The average of LoRA files, exact: of the updates they make, not of their matrices.

A file's update of a layer is ``scale * up @ down``; averaging downs and ups by themselves averages something else
(cross terms). Side by side, weighted, the factors of all files give the sum of their updates at the sum of their
ranks; a singular value decomposition brings it back to the rank of the files, with the least error that any matrices
of that rank can have. It is taken of a small core: the factors' QR decompositions leave only rank by rank products,
so no layer's full matrix is ever made. All of it in float64.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import ConfigError, ModelFileError
from engine.lora.formats import load_lora, save_lora, stored_as
from engine.lora.metadata import read_metadata
from engine.lora.targets import Target
from engine.text import safe_text

OF_CONTENTS = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256", "lora_adapter_metadata")
"""Keys that tell of the matrices of the file they came from."""


@dataclass(frozen=True)
class Part:
    """A LoRA file as read, and what it counts."""

    state: Mapping[str, Tensor]
    targets: Sequence[Target]
    weight: float


@dataclass(frozen=True)
class Blend:
    """An average, as the state of one LoRA.

    Attributes:
        lost: what the rank could not hold, as a share of the average update: Frobenius norms over all layers.
        worst, worst_lost: the layer that lost most, and how much of its own.
    """

    state: dict[str, Tensor]
    targets: list[Target]
    lost: float
    worst: str
    worst_lost: float


def blend(parts: Sequence[Part], step: Callable[[int, int], bool] = lambda done, total: True) -> Blend | None:
    """Average ``parts`` by their weights, which sum up to 1; each layer at the largest rank that a part has there.

    Args:
        step: told after every layer how many are done, and of how many; False ends it.

    Returns:
        None where ``step`` ended it.

    Raises:
        ModelFileError: the parts adapt different layers.
    """
    tables = [{target.name: target for target in part.targets} for part in parts]
    _require_same(tables)
    state: dict[str, Tensor] = {}
    targets: list[Target] = []
    squares: list[tuple[float, float]] = []
    for done, name in enumerate(tables[0], start=1):
        largest = max((table[name] for table in tables), key=lambda target: target.rank)
        # A scale that is not above zero cannot be divided among the factors.
        target = largest if largest.scale > 0 else Target(**(vars(largest) | {"alpha": float(largest.rank)}))
        factors = [
            (
                part.state[f"{name}.lora_down.weight"].double(),
                part.state[f"{name}.lora_up.weight"].double() * (part.weight * table[name].scale / target.scale),
            )
            for part, table in zip(parts, tables, strict=True)
        ]
        down, up, lost, whole = refactored(factors, target.rank)
        state[f"{name}.lora_down.weight"], state[f"{name}.lora_up.weight"] = down.float(), up.float()
        targets.append(target)
        squares.append((lost * target.scale**2, whole * target.scale**2))
        if not step(done, len(tables[0])):
            return None
    shares = [_share(lost, whole) for lost, whole in squares]
    worst = max(range(len(shares)), key=lambda number: shares[number])
    lost = _share(math.fsum(lost for lost, _ in squares), math.fsum(whole for _, whole in squares))
    return Blend(state, targets, lost, targets[worst].name, shares[worst])


def refactored(factors: Sequence[tuple[Tensor, Tensor]], rank: int) -> tuple[Tensor, Tensor, float, float]:
    """The sum of ``up @ down`` over ``factors`` as two matrices of ``rank`` again.

    Args:
        factors: down (r, in) and up (out, r), each pair of its own rank.

    Returns:
        down (rank, in), up (out, rank), the square of what they lack, the square of the sum itself (Frobenius).
    """
    downs, ups = torch.cat([down for down, _ in factors]), torch.cat([up for _, up in factors], dim=1)
    left, core_left = torch.linalg.qr(ups)
    right, core_right = torch.linalg.qr(downs.T)
    u, sizes, v = torch.linalg.svd(core_left @ core_right.T, full_matrices=False)
    kept = min(rank, len(sizes))
    # Half of each size to either side: both matrices are of one magnitude, which 16 bit hold best.
    roots = sizes[:kept].sqrt()
    down, up = downs.new_zeros(rank, downs.shape[1]), ups.new_zeros(ups.shape[0], rank)
    down[:kept] = roots[:, None] * (v[:kept] @ right.T)
    up[:, :kept] = (left @ u[:, :kept]) * roots
    return down, up, float(sizes[kept:].square().sum()), float(sizes.square().sum())


def blend_files(
    files: Sequence[Path],
    weights: Sequence[float],
    out: Path,
    tool: str,
    now: float,
    step: Callable[[int, int], bool] = lambda done, total: True,
) -> Blend | None:
    """Blend LoRA files into a new one, in the layout and number format of the first, saying what it was made of.

    Args:
        weights: what each file counts; only their proportions matter.
        tool: the program, as files name it.
        now: seconds since 1970.
        step: as for :func:`blend`.

    Raises:
        ConfigError: too few files, weights that cannot be used, or ``out`` stands already.
        ModelFileError: a file cannot be read, or they do not belong together.
        DiskError: ``out`` cannot be written.
    """
    shares = _shares(files, weights)
    if out.exists():
        raise ConfigError("The file stands already", safe_text(out), "Name another one with --out: none is replaced.")
    parts = [Part(*load_lora(file), share) for file, share in zip(files, shares, strict=True)]
    found = blend(parts, step)
    if found is not None:
        layout, dtype = stored_as(files[0])
        metadata = _metadata(files, shares, found, out.stem, tool, now)
        save_lora(out, found.state, found.targets, layout, dtype, metadata)
    return found


def _shares(files: Sequence[Path], weights: Sequence[float]) -> list[float]:
    if len(files) < 2:
        raise ConfigError("Nothing to blend", f"{len(files)} LoRA files are given", "Give two or more.")
    total = math.fsum(weights)
    if len(weights) != len(files) or not 0 < total < math.inf or min(weights) < 0:
        raise ConfigError(
            "The weights cannot be used",
            f"{len(weights)} weights for {len(files)} files: {', '.join(f'{weight:g}' for weight in weights[:20])}",
            "Give one for each file, none below 0 and not all of them 0.",
        )
    return [weight / total for weight in weights]


def _metadata(
    files: Sequence[Path], shares: Sequence[float], found: Blend, name: str, tool: str, now: float
) -> dict[str, str]:
    """What the newest of the files says of itself, as far as it holds, and what was blended."""
    said = [read_metadata(file) for file in files]
    newest = max(said, key=lambda each: int(steps) if (steps := each.get("ss_steps", "")[:9]).isdecimal() else 0)
    kept = {key: safe_text(value, 1_000_000, newlines=True) for key, value in newest.items()}
    kept = {key: value for key, value in kept.items() if key not in OF_CONTENTS}
    parts = [
        {
            "name": safe_text(file.stem, 200),
            "weight": round(share, 6),
            "epoch": safe_text(each.get("ss_epoch", ""), 20),
            "steps": safe_text(each.get("ss_steps", ""), 20),
            "sha256": safe_text(each.get("sshs_model_hash", ""), 64),
        }
        for file, share, each in zip(files, shares, said, strict=True)
    ]
    titled = kept.get("modelspec.title", "") not in ("", kept.get("ss_output_name", ""))
    return kept | {
        "ss_output_name": safe_text(name, 200),
        "ss_blended_from": json.dumps(parts, ensure_ascii=False),
        "ss_blend_lost": f"{found.lost:.6g}",
        "modelspec.title": kept["modelspec.title"] if titled else safe_text(name, 200),
        "modelspec.date": datetime.datetime.fromtimestamp(now, tz=datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "modelspec.implementation_version": safe_text(tool, 100),
    }


def _share(lost: float, whole: float) -> float:
    return math.sqrt(lost / whole) if whole > 0 else 0.0


def _require_same(tables: Sequence[Mapping[str, Target]]) -> None:
    """Refuse parts that adapt different layers, or layers of another size."""

    def shapes(table: Mapping[str, Target]) -> dict[str, tuple[int, int]]:
        return {name: (target.in_features, target.out_features) for name, target in table.items()}

    first = shapes(tables[0])
    for number, table in enumerate(tables[1:], start=2):
        if (other := shapes(table)) != first:
            odd = sorted(set(first.items()) ^ set(other.items()))[0][0]
            raise ModelFileError(
                "These LoRA files do not belong together",
                f"number {number} adapts {len(other)} layers, the first {len(first)}; they differ in {odd}",
                "Blend files of one run, or of runs with the same [lora] targets and blocks.",
            )
