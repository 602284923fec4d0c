"""Finds one part (transformer, autoencoder, CLIP, T5) among a header's tensors and reads its sizes from shapes.

In: a :class:`~engine.models.header.Header`. Out: a :class:`Part` with the names a loader knows (prefixes that
other programs put in front are stripped, so a part can lie in a file of its own or in an all-in-one checkpoint),
its fp8 scales set apart, and the parameters that the header's metadata states. Stands alone because detection and
loading must agree on all of this. Torch-free.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import ModelFileError
from engine.models.header import Header, TensorInfo
from engine.text import safe_text

MAX_BLOCKS = 1000
"""Deeper models than this are damaged headers, not models."""

# Prefixes of each part, longest first; "" is a file that holds this part alone.
PREFIXES: dict[str, tuple[str, ...]] = {
    "transformer": ("model.diffusion_model.", "diffusion_model.", ""),
    "autoencoder": ("first_stage_model.", "vae.", ""),
    "clip_l": ("text_encoders.clip_l.transformer.text_model.", "clip_l.transformer.text_model.", "text_model.", ""),
    "t5": ("text_encoders.t5xxl.transformer.", "t5xxl.transformer.", ""),
}
# What a part's names begin with after the prefix.
_MARKS: dict[str, tuple[str, ...]] = {
    "transformer": ("double_blocks.", "single_blocks."),
    "autoencoder": ("encoder.down.", "decoder.up.", "encoder.conv_in.", "decoder.conv_in."),
    "clip_l": ("embeddings.token_embedding.", "embeddings.position_embedding.", "encoder.layers."),
    "t5": ("encoder.block.", "shared."),
}
# Derived, tied or unused tensors that files carry and no loader needs.
_TOLERATED: dict[str, re.Pattern[str]] = {
    "transformer": re.compile(r"$^"),
    "autoencoder": re.compile(r"$^"),
    "clip_l": re.compile(
        r"(.*\.)?(position_ids|logit_scale|text_projection(\.weight)?|visual_projection\.weight|vision_model\..*)"
    ),
    "t5": re.compile(r"(.*\.)?(encoder\.embed_tokens\.weight|logit_scale|spiece_model)"),
}
_SCALE = re.compile(r"(.+)\.(?:scale_weight|weight_scale)")
_QUANT_NOTE = re.compile(r"(.+\.(?:scale_input|input_scale|comfy_quant)|scaled_fp8)")


@dataclass(frozen=True)
class Part:
    """One model inside a file: its tensors by bare name, scales of fp8 weights, and names that belong to nothing."""

    header: Header
    kind: str
    prefix: str
    tensors: dict[str, TensorInfo]
    scales: dict[str, TensorInfo]
    strangers: tuple[str, ...]

    @property
    def scaled(self) -> bool:
        """Whether fp8 weights must be multiplied by scales."""
        return bool(self.scales)


def find_part(header: Header, kind: str) -> Part | None:
    """The part of this kind in ``header``, or None where no name looks like one."""
    for prefix in PREFIXES[kind]:
        marks = tuple(prefix + mark for mark in _MARKS[kind])
        if any(name.startswith(marks) for name in header.tensors):
            return _cut_out(header, kind, prefix)
    return None


def _cut_out(header: Header, kind: str, prefix: str) -> Part:
    tensors, scales, strangers = {}, {}, []
    other_parts = tuple(p for k, all_of in PREFIXES.items() if k != kind for p in all_of if p)
    for name, info in header.tensors.items():
        bare = name.removeprefix(prefix)
        scale = _SCALE.fullmatch(bare)
        if not name.startswith(prefix):
            if not name.startswith(other_parts) and not _ignorable(kind, name):
                strangers.append(name)
        elif scale:
            scales[f"{scale[1]}.weight"] = info
        elif not _ignorable(kind, bare) or (kind == "t5" and bare == "encoder.embed_tokens.weight"):
            tensors[bare] = info
    if kind == "t5":
        _untie(tensors)
    return Part(header, kind, prefix, tensors, scales, tuple(strangers))


def _ignorable(kind: str, name: str) -> bool:
    return bool(_QUANT_NOTE.fullmatch(name) or _TOLERATED[kind].fullmatch(name))


def _untie(tensors: dict[str, TensorInfo]) -> None:
    """T5's embedding lies under one name or both; keep it as ``shared.weight``."""
    tied = tensors.pop("encoder.embed_tokens.weight", None)
    if tied is not None:
        tensors.setdefault("shared.weight", tied)


class Shapes:
    """Sizes read from tensor shapes, any block standing for all: ``dim("double_blocks.N.img_mlp.0.weight", 0)``."""

    def __init__(self, tensors: Mapping[str, TensorInfo]) -> None:
        self._first: dict[str, TensorInfo] = {}
        self._deepest: dict[str, int] = {}
        for name, info in tensors.items():
            match = re.match(r"(.*?\b(?:double_blocks|single_blocks|block|layers))\.(\d{1,9})\.(.*)", name)
            general = f"{match[1]}.N.{match[3]}" if match else name
            self._first.setdefault(general, info)
            if match:
                self._deepest[match[1]] = max(self._deepest.get(match[1], -1), int(match[2]))

    def blocks(self, prefix: str) -> int:
        """One more than the highest block number under ``prefix``."""
        return self._deepest.get(prefix, -1) + 1

    def find(self, *places: tuple[str, int]) -> tuple[int, str] | None:
        """The size at the first of these (name, axis) that exists, with the name of the tensor that told it."""
        for general, axis in places:
            info = self._first.get(general)
            if info is not None and axis < len(info.shape):
                return info.shape[axis], info.name
        return None

    def has(self, general: str) -> bool:
        """Whether any tensor has this name."""
        return general in self._first


def stated_params(header: Header) -> dict[str, Any]:
    """The ``params`` JSON in the header's metadata, empty where there is none.

    Raises:
        ModelFileError: it is there and is not a JSON object.
    """
    text = header.metadata.get("params")
    if text is None:
        return {}
    try:
        params = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise _bad_params(header, f"not JSON: {safe_text(err, 200)}") from err
    if not isinstance(params, dict):
        raise _bad_params(header, "not a JSON object")
    return params


def stated_int(header: Header, params: Mapping[str, Any], key: str, default: int) -> int:
    """A whole number from 1 to 2^31 under ``key``.

    Raises:
        ModelFileError: another type or out of range.
    """
    value = params.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value % 1 or value < 1:
        raise _bad_params(header, f"{key} = {safe_text(repr(value), 80)}, expected a whole number from 1")
    if value >= 2**31:
        raise _bad_params(header, f"{key} = {safe_text(repr(value), 80)} is too large")
    return int(value)


def stated_ints(header: Header, params: Mapping[str, Any], key: str) -> tuple[int, ...] | None:
    """A list of whole numbers from 1 under ``key``, or None.

    Raises:
        ModelFileError: another type or out of range.
    """
    value = params.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not 1 <= len(value) <= 64:
        raise _bad_params(header, f"{key} = {safe_text(repr(value), 80)}, expected a list of whole numbers")
    return tuple(stated_int(header, {key: item}, key, 1) for item in value)


def stated_float(header: Header, params: Mapping[str, Any], key: str, default: float) -> float:
    """A finite number under ``key``.

    Raises:
        ModelFileError: another type, or not finite.
    """
    value = params.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e6:
        raise _bad_params(header, f"{key} = {safe_text(repr(value), 80)}, expected a number")
    return float(value)


def agree(header: Header, params: Mapping[str, Any], key: str, found: Any, tensor: str) -> None:
    """Check that what ``params`` states under ``key``, if anything, is what the shapes say.

    Raises:
        ModelFileError: a clash; the detail names the key, both values and the tensor.
    """
    if key in params and params[key] != found:
        stated = safe_text(repr(params[key]), 80)
        raise _bad_params(header, f"{key} = {stated}, but {tensor} says {found!r}")


def _bad_params(header: Header, detail: str) -> ModelFileError:
    return ModelFileError(
        "A model file contradicts itself",
        f"{safe_text(header.path, 400)}: params in the header's metadata: {detail}",
        "The file was damaged or written by a faulty program; get it again, or correct its metadata.",
    )


def check_depth(header: Header, blocks: Iterable[int]) -> None:
    """Refuse block numbers no model has, before a layout of that depth is built.

    Raises:
        ModelFileError: a depth above 1,000.
    """
    deepest = max(blocks, default=0)
    if deepest > MAX_BLOCKS:
        raise ModelFileError(
            "Not a model of a known kind",
            f"{safe_text(header.path, 400)} names block {deepest - 1}; no known model is that deep",
            "",
        )


def differences(
    layout: Mapping[str, tuple[int, ...]], part: Part
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """What ``part`` lacks, what it has too much, and which shapes differ (as text), against ``layout``."""
    missing = tuple(name for name in layout if name not in part.tensors)
    unexpected = (*(name for name in part.tensors if name not in layout), *part.strangers)
    clashes = tuple(
        f"{name} is {dims(info.shape)}, expected {dims(layout[name])}"
        for name, info in part.tensors.items()
        if name in layout and info.shape != tuple(layout[name])
    )
    return missing, unexpected, clashes


def dims(shape: Iterable[int]) -> str:
    """A shape as people write it: ``3072x64``."""
    return "x".join(map(str, shape)) or "scalar"
