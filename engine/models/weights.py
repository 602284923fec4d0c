"""Fills a module that stands on the meta device from a safetensors file, one tensor at a time.

In: a module without memory and the :class:`~engine.models.parts.Part` of a checked header. Out: the same module
with frozen weights on the wanted device in the wanted dtype. At no time does the host hold more than the tensor
in hand besides what is kept. The file is read, not mapped: truncating a mapped file would kill the process, a
short read is an error like any other. fp8 weights are multiplied by their scales here.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Mapping
from io import FileIO

import torch
from torch import Tensor, nn

from engine.errors import ModelFileError
from engine.models.detect import listed
from engine.models.header import Header, TensorInfo
from engine.models.parts import Part, dims
from engine.text import safe_text

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""Dtypes that weights may have in a file."""

_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_CHECKED = 2**20
"""Tensors up to this many elements are checked for NaN and infinity: every norm, bias and embedding of steps."""


def load_weights(
    module: nn.Module,
    part: Part,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    rename: Callable[[str], str] | None = None,
    keep_float32: Callable[[str], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Fill ``module`` (on the meta device) with the weights of ``part``, strictly, and freeze it.

    Args:
        module: built under ``torch.device("meta")``; tied parameters may appear under several names.
        part: the tensors, by the names of the file's layout.
        device: where the weights go.
        dtype: their type there.
        rename: the module's name for a name of the file; identity when None.
        keep_float32: module names that stay float32 whatever ``dtype``.
        progress: told bytes read and in all, after each tensor; what it raises ends the loading.

    Raises:
        ModelFileError: a tensor is missing, unexpected, of another shape, of a dtype no weight has, not finite,
            or the file ends before it.
    """
    rename = rename or (lambda name: name)
    sources = {rename(name): info for name, info in part.tensors.items()}
    scales = {rename(name): info for name, info in part.scales.items()}
    wanted = _wanted(module)
    _check_names(part, {name: shape for name, (shape, _) in wanted.items()}, sources, scales)
    done, total = 0, sum(info.end - info.begin for info in sources.values())
    with _open(part) as file:
        before = _stamp(file)
        for name, info in sorted(sources.items(), key=lambda item: item[1].begin):
            to = torch.float32 if keep_float32 and keep_float32(name) else dtype
            scale = _read(file, part, scales[name]).float() if name in scales else None
            value = _on_device(_read(file, part, info), scale, device, to, part, info)
            for alias in wanted[name][1]:
                _place(module, alias, value)
            done += info.end - info.begin
            if progress is not None:
                progress(done, total)
        _refuse_changed(part, file, before)
    module.requires_grad_(False)


def check_layout(part: Part, layout: Mapping[str, tuple[int, ...]]) -> None:
    """Check that ``part`` holds these tensors in these shapes, in dtypes that weights have, and nothing else.

    Raises:
        ModelFileError: it does not; the detail names what is missing, unexpected, of another shape or dtype.
    """
    _check_names(part, layout, part.tensors, part.scales)


class PartReader:
    """An open file, and the tensors of one part of it, one at a time; a context manager."""

    def __init__(self, part: Part) -> None:
        """Open the file.

        Raises:
            ModelFileError: it cannot be opened.
        """
        self.part = part
        self._file = _open(part)
        self._before = _stamp(self._file)

    def __enter__(self) -> PartReader:
        """Nothing but itself."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Close the file.

        Raises:
            ModelFileError: nothing else went wrong, and the file was changed while it was read.
        """
        with self._file:
            if not any(raised):
                self.refuse_changed()

    def refuse_changed(self) -> None:
        """Look whether the file is as it was when it was opened.

        Raises:
            ModelFileError: it is not.
        """
        _refuse_changed(self.part, self._file, self._before)

    def raw(self, name: str) -> tuple[Tensor, Tensor | None]:
        """A tensor as it lies in the file, on the CPU, and its scale in float32 where it has one.

        Raises:
            ModelFileError: the file ends before it or cannot be read.
        """
        scale = self.part.scales.get(name)
        value = _read(self._file, self.part, self.part.tensors[name])
        return value, None if scale is None else _read(self._file, self.part, scale).float()

    def wide(self, name: str, device: torch.device | str, dtype: torch.dtype) -> Tensor:
        """A tensor on ``device`` in ``dtype``, multiplied by its scale.

        Raises:
            ModelFileError: unreadable, not finite, or scales of an unknown form.
        """
        raw, scale = self.raw(name)
        return _on_device(raw, scale, device, dtype, self.part, self.part.tensors[name])

    def broken(self, name: str) -> ModelFileError:
        """The error for a tensor that holds NaN or infinity."""
        return _broken(self.part, self.part.tensors[name])

    def unknown_scales(self, name: str) -> ModelFileError:
        """The error for a tensor whose scales are neither one for all nor one a row."""
        return _unknown_scales(self.part, self.part.tensors[name], self.part.scales[name].shape)


def _wanted(module: nn.Module) -> dict[str, tuple[torch.Size, list[str]]]:
    """Shapes by name; tied tensors once, under their first name, with all the names they have."""
    first: dict[int, str] = {}
    wanted: dict[str, tuple[torch.Size, list[str]]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        name_of_it = first.setdefault(id(tensor), name)
        wanted.setdefault(name_of_it, (tensor.shape, []))[1].append(name)
    return wanted


def _check_names(
    part: Part,
    wanted: Mapping[str, tuple[int, ...]],
    sources: Mapping[str, TensorInfo],
    scales: Mapping[str, TensorInfo],
) -> None:
    problems = []
    missing = [name for name in wanted if name not in sources]
    unexpected = [*(info.name for name, info in sources.items() if name not in wanted), *part.strangers]
    unexpected += [info.name for name, info in scales.items() if name not in sources]
    clashes = [
        f"{info.name} is {dims(info.shape)}, expected {dims(wanted[name])}"
        for name, info in sources.items()
        if name in wanted and info.shape != tuple(wanted[name])
    ]
    every = (*sources.values(), *scales.values())
    packed = [f"{info.name} ({info.dtype})" for info in every if info.dtype not in DTYPES]
    for what, names in (
        ("missing", missing), ("unexpected", unexpected), ("wrong shape", clashes), ("unusable dtype", packed),
    ):  # fmt: skip
        if names:
            problems.append(f"{what}: {listed(names)}")
    if problems:
        raise ModelFileError(
            "A model file does not fit the model",
            f"{safe_text(part.header.path, 400)}: " + "; ".join(problems),
            "It may be a part of a split model, another model or a damaged conversion.",
        )


def _open(part: Part) -> FileIO:
    path = part.header.path
    try:
        return open(path, "rb", buffering=0)
    except OSError as err:
        raise ModelFileError("A model file could not be read", f"{safe_text(path, 400)}: {err}", "") from err


def _stamp(file: FileIO) -> tuple[int, int]:
    """What shows that an open file is written to: its size and the time of its last change (ns)."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def _refuse_changed(part: Part, file: FileIO, before: tuple[int, int]) -> None:
    """Refuse what was read of a file that is not as it was, at first or by its header: it may be half of another."""
    now = _stamp(file)
    if now == before and now[0] == part.header.size_bytes:
        return
    raise ModelFileError(
        "A model file was changed while it was read",
        f"{safe_text(part.header.path, 400)} had {part.header.size_bytes} bytes, now {now[0]}; another program wrote "
        "to it",
        "Wait until it is whole (a download or copy that still runs), then start again.",
    )


def _read(file: FileIO, part: Part, info: TensorInfo) -> Tensor:
    return _tensor(file, part.header, info)


def _tensor(file: FileIO, header: Header, info: TensorInfo) -> Tensor:
    """One tensor's bytes from the file into a CPU tensor of the file's dtype."""
    buffer = torch.empty(info.end - info.begin, dtype=torch.uint8)
    view = buffer.numpy().data
    try:
        file.seek(header.data_offset + info.begin)
        while view:
            got = file.readinto(view)
            if not got:
                raise OSError("the file ended early; it was changed or truncated while it was read")
            view = view[got:]
    except OSError as err:
        raise ModelFileError(
            "A model file could not be read", f"{safe_text(header.path, 400)}, tensor {info.name}: {err}", ""
        ) from err
    return buffer.view(DTYPES[info.dtype]).reshape(info.shape)


def _on_device(
    raw: Tensor, scale: Tensor | None, device: torch.device | str, dtype: torch.dtype, part: Part, info: TensorInfo
) -> Tensor:
    """``raw`` moved, then converted there, then scaled: ``w = fp8.to(compute) * scale``."""
    if raw.numel() <= _CHECKED:
        _check_finite(raw, scale, part, info)
    value = raw.to(device).to(dtype)
    if scale is None:
        return value
    if scale.numel() == 1:
        return value.mul_(float(scale))
    if scale.numel() == value.shape[0] and value.ndim == 2:
        return value.mul_(scale.reshape(-1, 1).to(value.device))
    raise _unknown_scales(part, info, scale.shape)


def _unknown_scales(part: Part, info: TensorInfo, shape: Iterable[int]) -> ModelFileError:
    return ModelFileError(
        "A model file has scales of an unknown form",
        f"{safe_text(part.header.path, 400)}: {info.name} {dims(info.shape)} has a scale of {dims(shape)}",
        "Known are one scale per tensor and one per row. Give the fp16, bf16 or plain fp8 file of the same model.",
    )


def _check_finite(raw: Tensor, scale: Tensor | None, part: Part, info: TensorInfo) -> None:
    wide = raw.float() if raw.dtype in _FP8 else raw
    if wide.isfinite().all() and (scale is None or bool(scale.isfinite().all())):
        return
    raise _broken(part, info)


def _broken(part: Part, info: TensorInfo) -> ModelFileError:
    return ModelFileError(
        "A model file holds broken numbers",
        f"{safe_text(part.header.path, 400)}: {info.name} has NaN or infinity",
        "The file is damaged or was made by a run that diverged.",
    )


def _place(module: nn.Module, name: str, value: Tensor) -> None:
    *path, leaf = name.split(".")
    owner = module.get_submodule(".".join(path))
    if leaf in owner._buffers:
        owner._buffers[leaf] = value
    else:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)


def free_gpu() -> None:
    """Give what dropped tensors held back to the GPU; call it after the last reference is gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
