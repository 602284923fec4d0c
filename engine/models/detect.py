"""Says what a model file is, by its header alone: never by its name, never by its data.

In: a path. Out: a :class:`ModelInfo` (kind, family, variant, dtype, size, what is missing). Stands alone because
finding models, starting a run and explaining a wrong file all ask the same question. Torch-free and quick: a
FLUX.1 header takes milliseconds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.errors import ModelFileError
from engine.models.autoencoder_layout import autoencoder_layout, autoencoder_sizes
from engine.models.flux_layout import flux_layout, flux_sizes, flux_variant
from engine.models.header import Header, TensorInfo, read_header
from engine.models.parts import Part, differences, find_part
from engine.models.text_layout import clip_layout, clip_sizes, t5_layout, t5_sizes
from engine.text import safe_text

SHOWN = 20
"""Names listed in a message before the rest is counted."""

WANTED = {
    "transformer": "a FLUX.1 transformer as a single file: flux1-dev.safetensors or flux1-schnell.safetensors",
    "autoencoder": "FLUX.1's autoencoder as a single file: ae.safetensors",
    "clip_l": "the CLIP-L text encoder: clip_l.safetensors",
    "t5": "the T5-XXL text encoder: t5xxl_fp16.safetensors or t5xxl_fp8_e4m3fn.safetensors",
}
"""What each slot of a run's configuration wants, in words."""

_DTYPE_NAMES = {
    "F32": "fp32", "F16": "fp16", "BF16": "bf16", "F64": "fp64", "F8_E4M3": "fp8_e4m3fn", "F8_E5M2": "fp8_e5m2",
    "U8": "uint8", "I8": "int8",
}  # fmt: skip


@dataclass(frozen=True)
class ModelInfo:
    """What a file is.

    ``kind`` is transformer, autoencoder, clip_l, clip_g, t5, checkpoint, lora or unknown; ``family`` is flux1,
    chroma, sdxl, sd or empty; ``note`` is a reason or remark for people, empty where there is nothing to say.
    """

    path: Path
    kind: str
    family: str
    variant: str
    dtype: str
    parameters: int
    size_bytes: int
    complete: bool
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = {**self.__dict__, "path": str(self.path)}
        return plain | {"missing": list(self.missing), "unexpected": list(self.unexpected), "params": self.params}


def detect(path: Path) -> ModelInfo:
    """Recognise the model file at ``path``.

    Raises:
        ModelFileError: it cannot be read, is a pickle, is truncated or is not safetensors.
    """
    return recognise(read_header(Path(path)))


def recognise(header: Header) -> ModelInfo:
    """Say what a header describes."""
    for reader in (_lora, _quantised, _chroma, _checkpoint, _diffusers, _parts, _other):
        info = reader(header, header.tensors)
        if info is not None:
            return info
    return _info(header, header.tensors.values(), "unknown", note="no tensor names of a known model")


def expect(path: Path, kind: str) -> ModelInfo:
    """Recognise ``path`` and insist that it holds a complete model of ``kind``, alone or in a checkpoint.

    Args:
        path: the file.
        kind: transformer, autoencoder, clip_l or t5.

    Raises:
        ModelFileError: another kind (says which), a Diffusers folder, or something is missing (names it).
    """
    return expect_part(path, kind)[0]


def expect_part(path: Path, kind: str) -> tuple[ModelInfo, Part]:
    """Like :func:`expect`, with the part's tensors for loading."""
    path = Path(path)
    if path.is_dir():
        raise _folder_error(path, kind)
    header = read_header(path)
    info, part = recognise(header), find_part(header, kind)
    if info.kind == "checkpoint" and info.family == "flux1" and part is not None:
        info = _part_info(part)
    if info.kind != kind or part is None or info.family not in _FAMILIES[kind]:
        raise _kind_error(info, kind)
    if not info.params and info.family == "flux1":
        _READERS[kind](part)  # raises: a header that contradicts itself says so better than a list of names
    if not info.complete:
        raise _incomplete_error(info)
    return info, part


_FAMILIES = {"transformer": ("flux1", "chroma"), "autoencoder": ("flux1",), "clip_l": ("flux1",), "t5": ("flux1",)}


def _incomplete_error(info: ModelInfo) -> ModelFileError:
    """The error for a file that is of the right kind and does not hold all of it, or too much."""
    lines = [info.note] if info.note else []
    if info.missing:
        lines.append(f"missing: {listed(info.missing)}")
    if info.unexpected:
        lines.append(f"unexpected: {listed(info.unexpected)}")
    return ModelFileError(
        f"The {_plain(info.kind)} file is not complete"
        if info.missing
        else f"The {_plain(info.kind)} file is unusual",
        f"{safe_text(info.path, 400)}: " + "; ".join(lines),
        "It may be a part of a split model or a damaged conversion; get " + WANTED.get(info.kind, "the whole file"),
    )


def listed(names: Iterable[str]) -> str:
    """The first 20 names, then how many more."""
    every = [safe_text(name, 300) for name in names]
    more = f", and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def _plain(kind: str) -> str:
    return {"clip_l": "CLIP-L", "clip_g": "CLIP-G", "t5": "T5", "lora": "LoRA"}.get(kind, kind)


def _kind_error(info: ModelInfo, kind: str) -> ModelFileError:
    what = " ".join(part for part in (info.family, info.variant, _plain(info.kind)) if part)
    found = f"a LoRA ({what})" if info.kind == "lora" else what
    if info.kind == "unknown":
        found = "not a model that is known"
    hint = f"Wanted is {WANTED[kind]}."
    if info.kind == "lora":
        hint += " A LoRA is trained on top of a base model; it is not one itself."
    detail = f"{safe_text(info.path, 400)} is {found}" + (f": {info.note}" if info.note else "")
    return ModelFileError(f"Not a {_plain(kind)} file", detail, hint)


def _folder_error(path: Path, kind: str) -> ModelFileError:
    inside = ("model_index.json", "config.json", "diffusion_pytorch_model.safetensors.index.json")
    diffusers = any((path / name).exists() for name in inside) or (path / "transformer").is_dir()
    what = "a folder in Diffusers' layout" if diffusers else "a folder"
    return ModelFileError(
        f"Not a {_plain(kind)} file", f"{safe_text(path, 400)} is {what}", f"Wanted is {WANTED[kind]}."
    )


def _info(header: Header, tensors: Iterable[TensorInfo], kind: str, **more: Any) -> ModelInfo:
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[tensor.dtype] += tensor.count
    dominant = counts.most_common(1)[0][0] if counts else ""
    plain = ModelInfo(
        path=header.path,
        kind=kind,
        family="",
        variant="",
        dtype=_DTYPE_NAMES.get(dominant, dominant.lower()),
        parameters=sum(counts.values()),
        size_bytes=header.size_bytes,
        complete=False,
    )
    return replace(plain, **more)


def _part_info(part: Part) -> ModelInfo:
    """What a part is, complete or not; a contradiction in its header becomes the note."""
    try:
        params, layout, family, variant, note = _READERS[part.kind](part)
    except ModelFileError as err:
        return _info(
            part.header, part.tensors.values(), part.kind, family="flux1", note=_after_path(err, part.header)
        )
    missing, unexpected, clashes = differences(layout, part)
    complete = not (missing or unexpected or clashes)
    if clashes:
        note = f"shapes: {listed(clashes)}"
    kind = "clip_g" if family == "sdxl" and part.kind == "clip_l" else part.kind
    info = _info(
        part.header, part.tensors.values(), kind, family=family, variant=variant, complete=complete, note=note
    )
    dtype = f"{info.dtype} scaled" if part.scaled else info.dtype
    return replace(info, dtype=dtype, params=params, missing=missing, unexpected=unexpected)


Reading = tuple[dict[str, Any], dict[str, tuple[int, ...]], str, str, str]
"""Parameters, layout, family, variant and a note."""


def _read_transformer(part: Part) -> Reading:
    sizes = flux_sizes(part)
    variant, note = flux_variant(sizes)
    return {**sizes, "axes_dim": list(sizes["axes_dim"])}, flux_layout(sizes), "flux1", variant, note


def _read_autoencoder(part: Part) -> Reading:
    sizes = autoencoder_sizes(part)
    params, layout = sizes.to_dict(), autoencoder_layout(sizes)
    if sizes.quant_conv:
        return params, layout, "sd", "sd/sdxl", f"an SD or SDXL autoencoder ({sizes.z_channels} latent channels)"
    return params, layout, "flux1", "", ""


def _read_clip(part: Part) -> Reading:
    sizes = clip_sizes(part)
    large = sizes.hidden_size == 1280
    return sizes.to_dict(), clip_layout(sizes), "sdxl" if large else "flux1", "", ""


def _read_t5(part: Part) -> Reading:
    sizes = t5_sizes(part)
    return sizes.to_dict(), t5_layout(sizes), "flux1", "", ""


_READERS = {"transformer": _read_transformer, "autoencoder": _read_autoencoder, "clip_l": _read_clip, "t5": _read_t5}


def _after_path(err: ModelFileError, header: Header) -> str:
    return f"{err.title}: {err.detail}".replace(f"{safe_text(header.path, 400)}: ", "")


def _parts(header: Header, names: dict[str, TensorInfo]) -> ModelInfo | None:
    """A file that holds one part alone."""
    for kind in ("transformer", "autoencoder", "t5", "clip_l"):
        part = find_part(header, kind)
        if part is not None:
            return _part_info(part)
    return None


def _checkpoint(header: Header, names: dict[str, TensorInfo]) -> ModelInfo | None:
    """Several models in one file: SDXL and SD checkpoints, and FLUX all-in-one files."""
    unet = "model.diffusion_model.input_blocks.0.0.weight" in names
    if unet:
        sdxl = any(name.startswith("conditioner.embedders.1.") for name in names)
        inside = {
            "text encoders": "conditioner." if sdxl else "cond_stage_model.",
            "autoencoder": "first_stage_model.",
        }
        missing = tuple(what for what, prefix in inside.items() if not any(n.startswith(prefix) for n in names))
        family = "sdxl" if sdxl else "sd"
        return _info(header, names.values(), "checkpoint", family=family, complete=not missing, missing=missing)
    found = [find_part(header, kind) for kind in ("transformer", "autoencoder", "t5", "clip_l")]
    held = [part for part in found if part is not None]
    if len(held) < 2 or any(not part.prefix for part in held):
        return None
    infos = [_part_info(part) for part in held]
    return _info(
        header, names.values(), "checkpoint", family="flux1", variant=infos[0].variant, params=infos[0].params,
        complete=all(info.complete for info in infos), missing=tuple(n for info in infos for n in info.missing),
        note="holds " + ", ".join(_plain(info.kind) for info in infos),
    )  # fmt: skip


def _chroma(header: Header, names: dict[str, TensorInfo]) -> ModelInfo | None:
    if not any("distilled_guidance_layer." in name for name in names):
        return None
    note = "Chroma is recognised and not trained yet"
    missing = () if any("double_blocks." in name for name in names) else ("double_blocks",)
    return _info(
        header, names.values(), "transformer", family="chroma", complete=not missing, missing=missing, note=note
    )


_LORA = re.compile(
    r"(?:lora_(?:up|down|A|B|mid)|lora\.(?:up|down)|lora_linear_layer|hada_w1_a|lokr_w[12]|dora_scale)"
)


def _lora(header: Header, names: dict[str, TensorInfo]) -> ModelInfo | None:
    hits = [name for name in names if _LORA.search(name)]
    if not hits or len(hits) * 4 < len(names):
        return None
    text = "\n".join(names)
    flux = "double_blocks" in text or "single_blocks" in text or "single_transformer_blocks" in text
    sdxl = any(mark in text for mark in ("input_blocks", "down_blocks", "lora_te2_", "mid_block", "middle_block"))
    if text.startswith(("lora_", "lycoris_")) or "\nlora_" in text:
        layout = "kohya"
    else:
        layout = "diffusers" if "transformer." in text or "unet." in text else "other"
    family = "flux1" if flux else "sdxl" if sdxl else ""
    return _info(header, names.values(), "lora", family=family, variant=layout, complete=True)


def _quantised(header: Header, names: dict[str, TensorInfo]) -> ModelInfo | None:
    """Formats that look like the model and whose weights are packed in a way that cannot be trained on here."""
    nf4 = any(".quant_state.bitsandbytes__" in name or name.endswith(".absmax") for name in names)
    packed = any(name.endswith((".qweight", ".weight_scale_2", ".wscales")) for name in names)
    if not (nf4 or packed):
        return None
    form = "bitsandbytes nf4" if nf4 else "4-bit packed"
    note = f"weights are packed as {form}; give the fp16, bf16 or fp8 file of the same model"
    return _info(header, names.values(), "unknown", note=note)


def _diffusers(header: Header, names: dict[str, TensorInfo]) -> ModelInfo | None:
    """Tensor names of Diffusers' folders: recognised, to say which file is wanted."""
    if any(name.startswith(("transformer_blocks.", "single_transformer_blocks.")) for name in names):
        note = "a transformer in Diffusers' layout (perhaps one part of several)"
        return _info(header, names.values(), "unknown", family="flux1", variant="diffusers", note=note)
    if any(name.startswith(("encoder.down_blocks.", "decoder.up_blocks.")) for name in names):
        return _info(
            header, names.values(), "unknown", variant="diffusers", note="an autoencoder in Diffusers' layout"
        )
    if any(name.startswith(("down_blocks.", "mid_block.")) for name in names):
        return _info(header, names.values(), "unknown", variant="diffusers", note="a U-Net in Diffusers' layout")
    return None


def _other(header: Header, names: dict[str, TensorInfo]) -> ModelInfo | None:
    """OpenCLIP's naming of CLIP-G, as SDXL checkpoints and some single files have it."""
    if any(name.endswith("transformer.resblocks.0.ln_1.weight") for name in names):
        return _info(header, names.values(), "clip_g", family="sdxl", complete="ln_final.weight" in names)
    return None
