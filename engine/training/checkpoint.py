"""The training state on disk: generations that are whole or not there.

A generation is a folder ``state/step-00000123`` with the adapter in float32, the optimizer and the place in the
run. It is written as ``.part``, every file flushed, sealed with a manifest of sizes and SHA-256, then renamed; only
then are older ones removed. Reading takes the newest whose manifest holds. A safetensors file alone would not do: a
flipped bit in it is silent.
"""

from __future__ import annotations

import contextlib
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

from engine.errors import DiskError, ModelFileError
from engine.files import atomic_path, atomic_write, disk_error, flush
from engine.models.header import parse_header
from engine.text import safe_text
from engine.training.generations import FORMAT, Generation, discard, folder_name, generations, read_newest, step_of

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
        identity: digests of what must not have changed on resume (dataset, base model, settings), by name.
        record: which :class:`engine.training.record.Record` says what stands behind them; "" for a state of before.
    """

    place: Place
    lora: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    optimizer_json: dict[str, Any]
    identity: dict[str, str]
    record: str = ""


def save_state(states: Path, state: TrainingState, keep: int) -> Path:
    """Write a generation and prune to the newest ``keep``; returns its folder.

    Raises:
        DiskError: it could not be written; every earlier generation stands.
    """
    final = states / folder_name(state.place.step)
    part = states / f".{final.name}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        record = {
            "format": FORMAT,
            "place": asdict(state.place),
            "optimizer": state.optimizer_json,
            "identity": state.identity,
            "record": state.record,
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
        with contextlib.suppress(OSError):  # this state stands; what cannot be removed now goes after the next
            discard(old)
    return final


def keep_before(states: Path, step: int, reason: str) -> int:
    """Keep the newest generation from before ``step`` from being pruned, and the one kept before it, no more.

    ``reason`` goes into the mark. Not while a save is under way.

    Returns:
        Its step; 0 where there is none.

    Raises:
        DiskError: the mark could not be written.
    """
    before = next((folder for folder in generations(states) if folder.name < folder_name(step)), None)
    if before is None:
        return 0
    atomic_write(before / KEPT, f"{reason}\n")
    for old in [folder for folder in generations(states) if (folder / KEPT).exists()][MOST_KEPT:]:
        (old / KEPT).unlink(missing_ok=True)
    return step_of(before)


def load_newest(states: Path) -> tuple[TrainingState | None, list[str]]:
    """The newest generation that verifies, and a line for each damaged one passed over on the way.

    Returns:
        ``(None, [])`` where no generation stands.

    Raises:
        RunError: generations stand there but none verifies, or the newest that does is of another version; starting
            over silently would lose the work.
    """
    return read_newest(states, _parsed)


def _parsed(generation: Generation) -> TrainingState:
    table, contents = generation.table, generation.contents
    place = _place(table["place"])
    if generation.folder.name != folder_name(place.step):
        raise ValueError(f"it is the state of step {place.step}, under another's name")
    return TrainingState(
        place=place,
        lora=_tensors(generation.folder / "lora.safetensors", contents["lora.safetensors"]),
        optimizer=_tensors(generation.folder / "optimizer.safetensors", contents["optimizer.safetensors"]),
        optimizer_json=_of_kind(dict, table["optimizer"]),
        identity={str(name): str(digest) for name, digest in table["identity"].items()},
        record=_of_kind(str, table.get("record", "")),
    )


def _place(record: dict[str, Any]) -> Place:
    values = {part.name: record[part.name] for part in fields(Place) if part.name in record}
    return Place(**{name: _of_kind(type(getattr(Place(), name)), value) for name, value in values.items()})


def _of_kind(kind: type[Any], value: Any) -> Any:
    """``value`` if it is of this kind, a whole number taken for a float.

    Raises:
        ValueError: it is not, or a number below 0.
    """
    if kind is float and type(value) is int:
        value = float(value)
    if kind is tuple and isinstance(value, list):  # JSON knows no tuples; a place holds no lists
        value = tuple(_of_kind(int, item) for item in value)
    # A NaN may well be a sum of losses; that is for the loop to judge.
    if type(value) is not kind or (isinstance(value, int) and not 0 <= value < 2**53):
        raise ValueError(f"a {kind.__name__} wanted, found {safe_text(repr(value), 40)}")
    return value


def _tensors(path: Path, data: bytes) -> dict[str, Tensor]:
    """The tensors of a file in memory; a checksum holds for whatever its writer wrote, so its header is checked."""
    try:
        parse_header(data, path)
    except ModelFileError as err:
        raise ValueError(err.detail) from err
    found = load(data)
    for name, tensor in found.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds values that are not finite")
    return found


def _replace_folder(part: Path, final: Path) -> None:
    old = final.with_name(f".{final.name}.old")
    if final.exists():  # a damaged one of the same step, or a second save of it
        os.rename(final, old)
    try:
        os.rename(part, final)
    except OSError:
        with contextlib.suppress(OSError):  # the first error is the one to tell; sweeping puts it back, too
            os.rename(old, final)
        raise
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
