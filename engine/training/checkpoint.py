"""The training state on disk: generations that are whole or not there.

A generation is a folder ``state/step-00000123`` with the adapter in float32, the optimizer and the place in the
run. It is written as ``.part``, every file flushed, sealed with a manifest of sizes and SHA-256, then renamed; only
then are older ones removed. Reading takes the newest whose manifest holds. A safetensors file alone would not do: a
flipped bit in it is silent.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from engine.errors import DiskError, RunError
from engine.files import atomic_path, atomic_write, disk_error, flush

FORMAT = 2
"""2: the optimizer's tensors are those of flat storage; 1 had one for each matrix."""

KEPT = "KEPT"
"""A file in a generation that is not pruned; says why."""

MOST_KEPT = 2
"""Generations with such a mark at a time."""


@dataclass(frozen=True)
class Place:
    """Where in the run a state stands; all that order and random draws need.

    Attributes:
        step: optimizer steps done.
        epoch: epoch of the last step done, from 1; 0 before the first.
        index: steps of that epoch done.
        loss_sum: sum of the epoch's losses so far, for its mean.
        elapsed_s: training time so far, pauses left out.
        skipped: steps of this epoch, or of the last 50, that were left out because they were not finite.
    """

    step: int = 0
    epoch: int = 0
    index: int = 0
    loss_sum: float = 0.0
    elapsed_s: float = 0.0
    skipped: tuple[int, ...] = ()


@dataclass(frozen=True)
class TrainingState:
    """Everything that decides how the run goes on.

    Attributes:
        place: position in the run.
        lora: adapter weights by module name, float32.
        optimizer: the optimizer's tensors.
        optimizer_json: the optimizer's plain values.
        identity: what must not have changed on resume (dataset, base model, settings), by name.
    """

    place: Place
    lora: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    optimizer_json: dict[str, Any]
    identity: dict[str, str]


def save_state(states: Path, state: TrainingState, keep: int) -> Path:
    """Write a generation and prune to the newest ``keep``; returns its folder.

    Raises:
        DiskError: it could not be written; every earlier generation stands.
    """
    final = states / f"step-{state.place.step:08d}"
    part = states / f".{final.name}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        record = {
            "format": FORMAT,
            "place": asdict(state.place),
            "optimizer": state.optimizer_json,
            "identity": state.identity,
            "torch": torch.__version__,
        }
        contents: dict[str, Iterable[bytes | memoryview]] = {
            "lora.safetensors": _safetensors(state.lora),
            "optimizer.safetensors": _safetensors(state.optimizer),
            "state.json": [json.dumps(record).encode()],
        }
        manifest = {name: _write(part / name, parts) for name, parts in contents.items()}
        atomic_write(part / "MANIFEST.json", json.dumps(manifest, indent=1))
        _replace_folder(part, final)
    except (OSError, DiskError) as err:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(err, DiskError):
            raise
        raise disk_error(err, final) from err
    # Later ones are of a past that this state has replaced: damaged, or the run would have gone on from them.
    standing = generations(states)
    later = [folder for folder in standing if folder.name > final.name]
    earlier = [folder for folder in standing[len(later) :] if not (folder / KEPT).exists()]
    for old in [*later, *earlier[keep:]]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def keep_before(states: Path, step: int, reason: str) -> int:
    """Keep the newest generation from before ``step`` from being pruned, and the one kept before it, no more.

    ``reason`` goes into the mark. Not while a save is under way.

    Returns:
        Its step; 0 where there is none.

    Raises:
        DiskError: the mark could not be written.
    """
    before = next((folder for folder in generations(states) if folder.name < f"step-{step:08d}"), None)
    if before is None:
        return 0
    atomic_write(before / KEPT, f"{reason}\n")
    for old in [folder for folder in generations(states) if (folder / KEPT).exists()][MOST_KEPT:]:
        (old / KEPT).unlink(missing_ok=True)
    return int(before.name.removeprefix("step-"))


def sweep(states: Path) -> None:
    """Clear up what a kill left half-done; only for the holder of the run's lock."""
    for old in states.glob(".step-*.old"):
        final = states / old.name.removeprefix(".").removesuffix(".old")
        if not final.exists():  # killed between the two renames of a replacement
            os.rename(old, final)
        shutil.rmtree(old, ignore_errors=True)
    for part in states.glob(".step-*.part"):
        shutil.rmtree(part, ignore_errors=True)


def generations(states: Path) -> list[Path]:
    """Complete-looking generations, newest first."""
    return sorted((p for p in states.glob("step-*") if p.is_dir()), reverse=True)


def next_step(states: Path) -> int:
    """The step after the newest generation's, by its name alone: a damaged one may have a run begin earlier."""
    newest = next(iter(generations(states)), None)
    number = newest.name.removeprefix("step-") if newest is not None else ""
    return int(number) + 1 if number.isdecimal() else 1


def load_newest(states: Path) -> tuple[TrainingState | None, list[str]]:
    """The newest generation that verifies, and a line for each damaged one passed over on the way.

    Returns:
        ``(None, [])`` where no generation stands.

    Raises:
        RunError: generations stand there but none verifies, or the newest that does is of another version; starting
            over silently would lose the work.
    """
    damaged: list[str] = []
    for folder in generations(states):
        try:
            return _load(folder), damaged
        except (OSError, ValueError, KeyError, TypeError) as err:
            damaged.append(f"{folder.name}: {err}")
    if damaged:
        raise RunError(
            "No training state can be read",
            f"in {states}: " + "; ".join(damaged),
            "The LoRA files saved so far are intact. Train on from one with lora.resume_from in a new run.",
        )
    return None, []


def _load(folder: Path) -> TrainingState:
    manifest = json.loads((folder / "MANIFEST.json").read_bytes())
    contents: dict[str, bytes] = {}
    for name in ("lora.safetensors", "optimizer.safetensors", "state.json"):
        data = (folder / name).read_bytes()
        if len(data) != manifest[name]["size"] or _sha256(data) != manifest[name]["sha256"]:
            raise ValueError(f"{name} does not match its checksum")
        contents[name] = data
    record = json.loads(contents["state.json"])
    if record["format"] != FORMAT:
        raise RunError(
            "The training state was saved by another version",
            f"{folder} is in format {record['format']}, this version reads {FORMAT}",
            "Finish it with the version that began it, or begin a new run from its LoRA with lora.resume_from.",
        )
    lora, optimizer = load(contents["lora.safetensors"]), load(contents["optimizer.safetensors"])
    for name, tensor in (lora | optimizer).items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds values that are not finite")
    # JSON knows no tuples; a place holds no lists.
    place: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record["place"].items()}
    known = {field.name for field in fields(Place)}
    return TrainingState(
        place=Place(**{k: v for k, v in place.items() if k in known}),
        lora=lora,
        optimizer=optimizer,
        optimizer_json=record["optimizer"],
        identity=record["identity"],
    )


def _replace_folder(part: Path, final: Path) -> None:
    old = final.with_name(f".{final.name}.old")
    if final.exists():  # a damaged one of the same step, or a second save of it
        os.rename(final, old)
    os.rename(part, final)
    shutil.rmtree(old, ignore_errors=True)
    flush(final.parent)


def _write(path: Path, parts: Iterable[bytes | memoryview]) -> dict[str, int | str]:
    """Write a file and flush it; returns its size and SHA-256, made on the way."""
    digest, size = hashlib.sha256(), 0
    with atomic_path(path) as temp, temp.open("wb") as file:
        for part in parts:
            file.write(part)
            digest.update(part)
            size += len(part)
    return {"size": size, "sha256": digest.hexdigest()}


_NAMES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.bfloat16: "BF16",
    torch.uint8: "U8",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.bool: "BOOL",
}
"""Types that an optimizer keeps, as safetensors names them."""


def _safetensors(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """A safetensors file in parts: the header, then each tensor's own memory.

    The library's ``save`` copies everything twice, holding up every other thread meanwhile. Wide types first, as it
    does, so that each tensor lies aligned for its type.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, end = {}, 0
    for name in order:
        tensor, begin = tensors[name], end
        end += tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        yield tensors[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
