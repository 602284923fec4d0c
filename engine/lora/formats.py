"""LoRA files: written whole, finite and with their alphas; read strictly, whoever made them.

Owns the way between a state (``<module>.lora_down.weight``, float32) with its targets and a safetensors file in
kohya's or diffusers' layout. Names and conversions are :mod:`engine.lora.layouts`'s, metadata
:mod:`engine.lora.metadata`'s. Written files are a function of their contents: the header is sorted, nothing depends
on hash order or time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor

from engine.errors import ConfigError, ModelFileError
from engine.files import atomic_path
from engine.lora.layouts import (
    DIFFUSERS_PREFIX,
    KOHYA_PREFIX,
    Factors,
    from_diffusers,
    from_kohya,
    place_of,
    place_order,
    to_diffusers,
    to_kohya,
)
from engine.lora.targets import Target
from engine.models.header import Header, read_header
from engine.text import safe_text

log = logging.getLogger(__name__)

Layout = Literal["kohya", "diffusers"]
DType = Literal["float32", "bfloat16", "float16"]

_SUFFIXES = {
    "kohya": {".lora_down.weight": "down", ".lora_up.weight": "up", ".alpha": "alpha"},
    "diffusers": {".lora_A.weight": "down", ".lora_B.weight": "up", ".alpha": "alpha"},
}
_READABLE = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_OTHER_KINDS = {
    "hada_": "a LoHa", "lokr_": "a LoKr", "dora_scale": "a DoRA", "oft_": "an OFT", "lora_mid": "a LoCon with a core",
}  # fmt: skip


def save_lora(
    path: Path,
    state: Mapping[str, Tensor],
    targets: Sequence[Target],
    layout: Layout,
    dtype: DType,
    metadata: Mapping[str, str],
) -> None:
    """Write a LoRA file, atomically; hashes of the contents are added to ``metadata``.

    Raises:
        ModelFileError: a value is not finite, or not so any more in ``dtype``; nothing was written.
        DiskError: the file cannot be written; what stood there is unharmed.
    """
    tensors = layout_tensors(state, targets, layout)
    tensors = {
        name: tensor if name.endswith(".alpha") else _as(tensor, dtype, name) for name, tensor in tensors.items()
    }
    body = save(tensors)
    length = int.from_bytes(body[:8], "little")
    header: dict[str, Any] = json.loads(body[8 : 8 + length])
    header.pop("__metadata__", None)
    data = memoryview(body)[8 + length :]
    head = _header_bytes(header, {**metadata, **content_hashes(header, data, metadata)})
    with atomic_path(path) as temp, temp.open("wb") as file:
        file.write(head)
        file.write(data)


def layout_tensors(state: Mapping[str, Tensor], targets: Iterable[Target], layout: Layout) -> dict[str, Tensor]:
    """The tensors of a file in ``layout`` by name, alphas included."""
    return to_kohya(state, targets) if layout == "kohya" else to_diffusers(state, targets)


def content_hashes(header: Mapping[str, Any], data: memoryview, metadata: Mapping[str, str]) -> dict[str, str]:
    """Hashes that tell a file whatever its free metadata say.

    ``sshs_model_hash`` is the SHA-256 of all bytes after the header and ``sshs_legacy_hash`` the first eight digits
    of that over 64 KiB at 1 MiB of a file with the ``ss_`` metadata alone (both as kohya sd-scripts'
    ``precalculate_safetensors_hashes``); ``modelspec.hash_sha256`` is the first one as the model specification
    writes it.
    """
    digest = hashlib.sha256(data).hexdigest()
    head = _header_bytes(header, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    start, stop = 0x100000, 0x110000
    window = head[start:stop] + bytes(data[max(0, start - len(head)) : max(0, stop - len(head))])
    return {
        "sshs_model_hash": digest,
        "sshs_legacy_hash": hashlib.sha256(window).hexdigest()[:8],
        "modelspec.hash_sha256": f"0x{digest}",
    }


def _header_bytes(header: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    full = {"__metadata__": dict(sorted(metadata.items())), **header} if metadata else dict(header)
    text = json.dumps(full, separators=(",", ":"), ensure_ascii=False).encode()
    # The format wants the data aligned to eight bytes; spaces may follow the JSON.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _as(tensor: Tensor, dtype: DType, name: str) -> Tensor:
    cast = tensor.detach().to("cpu", getattr(torch, dtype)).contiguous()
    if torch.isfinite(cast).all():
        return cast.clone() if cast.data_ptr() == tensor.data_ptr() else cast
    if torch.isfinite(tensor).all():
        detail = f"{name} reaches {float(tensor.abs().max()):.3g}, more than {dtype} can hold"
        raise ModelFileError("The LoRA does not fit its number format", detail, 'Set saving.dtype = "bfloat16".')
    raise ModelFileError(
        "The LoRA holds numbers that are not finite",
        f"{name} has {int((~torch.isfinite(tensor)).sum())} values that are infinite or not a number",
        "The training diverged: go back to an earlier save and lower the learning rate.",
    )


def load_lora(path: Path) -> tuple[dict[str, Tensor], list[Target]]:
    """Read a LoRA file in kohya's or diffusers' layout into our state (float32) and its targets.

    An absent alpha counts as the rank, as readers take it.

    Raises:
        ModelFileError: the file is damaged, no plain LoRA for FLUX.1, or holds names, shapes or values it must not.
    """
    header = read_header(path)
    layout = _layout(header)
    grouped = _grouped(header, _SUFFIXES[layout])
    alphas = _header_alphas(header) if layout == "diffusers" else {}
    data = _data(header)
    pairs = {base: _factors(header, data, base, names, alphas.get(base)) for base, names in grouped.items()}
    try:
        modules = from_kohya(pairs) if layout == "kohya" else from_diffusers(pairs)
    except ModelFileError as err:
        raise ModelFileError(err.title, safe_text(f"{header.path}: {err.detail}"), err.hint) from err
    state, targets = {}, []
    for module, factors in sorted(modules.items(), key=lambda item: place_order(item[0])):
        state[f"{module}.lora_down.weight"] = factors.down
        state[f"{module}.lora_up.weight"] = factors.up
        kind = place_of(module).kind
        targets.append(Target(module, kind, factors.down.shape[1], factors.up.shape[0], factors.rank, factors.alpha))
    return state, targets


def stored_as(path: Path) -> tuple[Layout, DType]:
    """Layout and number format of a LoRA file, the widest one it holds, as :func:`save_lora` can write them.

    Raises:
        ModelFileError: it is damaged, or no plain LoRA for FLUX.1.
    """
    header = read_header(path)
    found = {info.dtype for name, info in header.tensors.items() if not name.endswith(".alpha")}
    if found & {"F32", "F64"} or len(found) > 1:
        return _layout(header), "float32"
    return _layout(header), "float16" if found == {"F16"} else "bfloat16"


def fit_state(state: Mapping[str, Tensor], found: Sequence[Target], wanted: Sequence[Target]) -> dict[str, Tensor]:
    """The state of a file for an adapter with the targets ``wanted``, doing the same as in the file.

    Where alpha / rank differ the up matrices are rescaled.

    Raises:
        ConfigError: modules or ranks differ.
    """
    have = {target.name: target for target in found}
    want = {target.name: target for target in wanted}
    odd = [f"{name} is not in the file" for name in want if name not in have]
    odd += [f"{name} is not trained by this configuration" for name in have if name not in want]
    odd += [
        f"{name} has rank {have[name].rank}, wanted {target.rank}"
        for name, target in want.items()
        if name in have and have[name].rank != target.rank
    ]
    if odd:
        raise ConfigError(
            "The LoRA to start from does not fit this run",
            f"{len(have)} modules in the file, {len(want)} wanted; "
            + "; ".join(odd[:4])
            + ("; ..." if odd[4:] else ""),
            "Set lora.targets, blocks, rank and ranks as they were in the run that made the file.",
        )
    fitted = dict(state)
    for name, target in want.items():
        factor = have[name].scale / target.scale
        if factor != 1.0:
            fitted[f"{name}.lora_up.weight"] = state[f"{name}.lora_up.weight"] * factor
    return fitted


def _layout(header: Header) -> Layout:
    names = list(header.tensors)
    for mark, kind in _OTHER_KINDS.items():
        found = next((name for name in names if mark in name), None)
        if found:
            raise _refused(header, f"it is {kind} ({found})", "Only plain LoRAs can be read.")
    if any(name.startswith(KOHYA_PREFIX) for name in names):
        return "kohya"
    if any(name.startswith(DIFFUSERS_PREFIX) and ".lora_" in name for name in names):
        return "diffusers"
    shown = ", ".join(names[:3]) or "none"
    raise _refused(
        header,
        f"its {len(names)} tensors are named neither lora_unet_... (kohya) nor transformer....lora_A (diffusers): "
        f"{shown}",
        "Give a LoRA for a FLUX.1 transformer.",
    )


def _grouped(header: Header, suffixes: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Tensor names by module and role (down, up, alpha)."""
    grouped: dict[str, dict[str, str]] = {}
    for name in header.tensors:
        suffix = next((suffix for suffix in suffixes if name.endswith(suffix)), None)
        if suffix is None:
            raise _refused(header, f"the tensor {name} is no part of a plain LoRA", "Only plain LoRAs can be read.")
        grouped.setdefault(name.removesuffix(suffix), {})[suffixes[suffix]] = name
    for base, names in grouped.items():
        if "down" not in names or "up" not in names:
            lacking = " and ".join(role for role in ("down", "up") if role not in names)
            raise _refused(header, f"{base} lacks its {lacking} matrix", "The file is incomplete: get it again.")
    return grouped


def _data(header: Header) -> memoryview:
    """All bytes after the header, in memory: were the file mapped, cutting it would kill the process.

    A file that carries the hash of its data is compared with it. Ours are refused where it does not hold; other
    programs are known to change a file and leave its old hash, which is said.
    """
    wanted = header.size_bytes - header.data_offset
    data = bytearray(wanted)
    try:
        with open(header.path, "rb") as file:
            file.seek(header.data_offset)
            found = file.readinto(data)
    except OSError as err:
        raise _refused(header, f"reading it failed: {err}", "Get the file again, or check the disk.") from err
    if found < wanted:
        raise _refused(header, f"{found} of {wanted} bytes could be read: it was changed meanwhile", "Try again.")
    told = header.metadata.get("sshs_model_hash", "")
    if told and told != hashlib.sha256(data).hexdigest():
        detail = "its numbers are not those it was saved with: the checksum in its header does not hold"
        if header.metadata.get("modelspec.implementation_version", "").startswith("lorakiln"):
            raise _refused(header, detail, "It was damaged on the way or on the disk: get it again.")
        log.warning("%s: %s; it may be damaged", safe_text(header.path, 400), detail)
    return memoryview(data)


def _factors(header: Header, data: memoryview, base: str, names: Mapping[str, str], alpha: float | None) -> Factors:
    down, up = (_read(header, data, names[role]) for role in ("down", "up"))
    if down.dim() != 2 or up.dim() != 2 or down.shape[0] != up.shape[1] or not down.shape[0]:
        raise _refused(
            header,
            f"{base}: down {tuple(down.shape)} and up {tuple(up.shape)} do not multiply; wanted (rank, in) and "
            "(out, rank)",
            "The file is damaged or a LoRA of another kind.",
        )
    if "alpha" in names:
        scalar = _read(header, data, names["alpha"])
        if scalar.numel() != 1:
            raise _refused(header, f"{names['alpha']} is {tuple(scalar.shape)}, wanted one number", "")
        alpha = float(scalar)
    return Factors(down, up, float(down.shape[0]) if alpha is None else alpha)


def _read(header: Header, data: memoryview, name: str) -> Tensor:
    info = header.tensors[name]
    if info.dtype not in _READABLE:
        wanted = ", ".join(sorted(_READABLE))
        raise _refused(header, f"{name} is {info.dtype}; wanted one of {wanted}", "")
    if not info.count:
        raise _refused(header, f"{name} is empty", "The file is of no use.")
    raw = torch.frombuffer(data, dtype=_READABLE[info.dtype], count=info.count, offset=info.begin)
    tensor = raw.reshape(info.shape).to(torch.float32, copy=True)
    if not torch.isfinite(tensor).all():
        raise _refused(header, f"{name} holds values that are infinite or not a number", "The file is of no use.")
    return tensor


def _header_alphas(header: Header) -> dict[str, float]:
    """Alphas that PEFT keeps in the header (``lora_adapter_metadata``), by module name; empty where it keeps none.

    An alpha per module is written as a pattern on names; only whole names are understood here, and others refused.
    """
    text = header.metadata.get("lora_adapter_metadata")
    if not text:
        return {}
    try:
        raw = json.loads(text)
        config = {key.removeprefix(DIFFUSERS_PREFIX): value for key, value in raw.items()}
        common = float(config["lora_alpha"])
        patterns = {str(key).lstrip("^"): float(value) for key, value in (config.get("alpha_pattern") or {}).items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as err:
        raise _refused(header, f"lora_adapter_metadata in its header cannot be read ({err!r})", "") from err
    if not all(math.isfinite(alpha) for alpha in (common, *patterns.values())):
        raise _refused(header, "lora_adapter_metadata in its header gives an alpha that is not finite", "")
    for key in ("use_dora", "use_rslora"):
        if config.get(key):
            raise _refused(header, f"its header sets {key}", "Only plain LoRAs can be read.")
    bases = {name.rsplit(".lora_", 1)[0] for name in header.tensors if ".lora_" in name}
    alphas = {base: patterns.pop(base.removeprefix(DIFFUSERS_PREFIX), common) for base in sorted(bases)}
    if patterns:
        raise _refused(header, f"its header gives an alpha for {next(iter(patterns))}, which is no module", "")
    return alphas


def _refused(header: Header, detail: str, hint: str) -> ModelFileError:
    return ModelFileError("The LoRA file cannot be used", safe_text(f"{header.path}: {detail}"), hint)
