"""The FLUX.1 autoencoder as a file: sizes read from a header, and the names and shapes they imply.

Torch-free. Names are those of black-forest-labs' ``ae.safetensors``, which SD and SDXL share: what tells them apart
is that FLUX has 16 latent channels and no quant convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from engine.errors import ModelFileError
from engine.models.parts import Part, agree, check_depth, stated_float, stated_int, stated_ints, stated_params
from engine.text import safe_text

Layout = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class AutoencoderSizes:
    """Size of an autoencoder; the defaults are FLUX.1's published values."""

    in_channels: int = 3
    out_channels: int = 3
    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    """Residual blocks per level of the encoder; the decoder has one more."""
    z_channels: int = 16
    norm_groups: int = 32
    scale_factor: float = 0.3611
    shift_factor: float = 0.1159
    quant_conv: bool = False
    """The 1x1 convolutions round the latent that SD and SDXL have and FLUX has not."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as they are written to a header's ``params``."""
        return {**asdict(self), "ch_mult": list(self.ch_mult)}


def autoencoder_sizes(part: Part) -> AutoencoderSizes:
    """Read the sizes of the autoencoder in ``part``.

    Shapes tell all but the groups of the norms and the latent's scale and shift, which come from ``params`` in the
    metadata, else they are FLUX's.

    Raises:
        ModelFileError: params contradict shapes, or the groups do not divide the channels.
    """
    header, tensors = part.header, part.tensors
    params = stated_params(header)
    default = AutoencoderSizes()

    def told(key: str, fallback: int, name: str, axis: int, parts: int = 1) -> int:
        info = tensors.get(name)
        if info is None or axis >= len(info.shape):
            return stated_int(header, params, key, fallback)
        value = info.shape[axis] // parts
        agree(header, params, key, value, name)
        return value

    ch = told("ch", default.ch, "encoder.conv_in.weight", 0)
    ch_mult = _multipliers(part, params, ch)
    blocks = _res_blocks(part, params)
    sizes = AutoencoderSizes(
        in_channels=told("in_channels", 3, "encoder.conv_in.weight", 1),
        out_channels=told("out_ch", 3, "decoder.conv_out.weight", 0),
        ch=ch,
        ch_mult=ch_mult,
        num_res_blocks=blocks,
        z_channels=told("z_channels", default.z_channels, "decoder.conv_in.weight", 1),
        norm_groups=stated_int(header, params, "norm_groups", default.norm_groups),
        scale_factor=stated_float(header, params, "scale_factor", default.scale_factor),
        shift_factor=stated_float(header, params, "shift_factor", default.shift_factor),
        quant_conv="quant_conv.weight" in tensors or "post_quant_conv.weight" in tensors,
    )
    if not sizes.scale_factor:
        raise ModelFileError(
            "A model file contradicts itself",
            f"{safe_text(header.path, 400)}: scale_factor = 0 in the header's params makes all latents zero",
            "Correct its metadata or leave scale_factor out.",
        )
    _check_groups(part, sizes)
    return sizes


def _multipliers(part: Part, params: Mapping[str, Any], ch: int) -> tuple[int, ...]:
    """Channel multipliers by level, finest first, from the last convolution of each level's first block."""
    stated = stated_ints(part.header, params, "ch_mult")
    levels = 1 + max(
        (int(name.split(".")[2]) for name in part.tensors if name.startswith("encoder.down.") and _numbered(name)),
        default=-1,
    )
    check_depth(part.header, (levels,))
    widths = [part.tensors.get(f"encoder.down.{level}.block.0.conv2.weight") for level in range(levels)]
    if not widths or any(info is None or not info.shape or ch < 1 or info.shape[0] % ch for info in widths):
        fallback = stated or AutoencoderSizes().ch_mult
        return fallback if len(fallback) >= levels else (*fallback, *[1] * (levels - len(fallback)))
    found = tuple(info.shape[0] // ch for info in widths if info is not None)
    if stated is not None:
        agree(part.header, {"ch_mult": list(stated)}, "ch_mult", list(found), "encoder.down.*.block.0.conv2.weight")
    return found


def _res_blocks(part: Part, params: Mapping[str, Any]) -> int:
    blocks = 0
    for name in part.tensors:
        pieces = name.split(".")
        if name.startswith("encoder.down.") and len(pieces) > 4 and pieces[3] == "block" and pieces[4].isdecimal():
            blocks = max(blocks, 1 + int(pieces[4][:9]))
    check_depth(part.header, (blocks,))
    if not blocks:
        return stated_int(part.header, params, "num_res_blocks", AutoencoderSizes().num_res_blocks)
    agree(part.header, params, "num_res_blocks", blocks, f"encoder.down.*.block.{blocks - 1}")
    return blocks


def _numbered(name: str) -> bool:
    pieces = name.split(".")
    return len(pieces) > 3 and pieces[2].isdecimal() and len(pieces[2]) < 10


def _check_groups(part: Part, sizes: AutoencoderSizes) -> None:
    for channels in {sizes.ch, *(sizes.ch * mult for mult in sizes.ch_mult)}:
        if channels < 1 or channels % sizes.norm_groups:
            raise ModelFileError(
                "The autoencoder's norms are unknown",
                f"{safe_text(part.header.path, 400)}: {sizes.norm_groups} groups do not divide {channels} channels",
                'State norm_groups as JSON under "params" in the header\'s metadata.',
            )


def autoencoder_layout(sizes: AutoencoderSizes) -> Layout:
    """Every tensor's name and shape for these sizes, in black-forest-labs' layout."""
    out: Layout = {}
    widths = [sizes.ch * mult for mult in sizes.ch_mult]
    levels, top = len(widths), widths[-1]
    _conv(out, "encoder.conv_in", sizes.ch, sizes.in_channels)
    for level, width in enumerate(widths):
        before = widths[level - 1] if level else sizes.ch
        for block in range(sizes.num_res_blocks):
            _residual(out, f"encoder.down.{level}.block.{block}", before if block == 0 else width, width)
        if level < levels - 1:
            _conv(out, f"encoder.down.{level}.downsample.conv", width, width)
    _middle(out, "encoder.mid", top)
    _ends(out, "encoder", top, 2 * sizes.z_channels)
    _conv(out, "decoder.conv_in", top, sizes.z_channels)
    _middle(out, "decoder.mid", top)
    for level, width in enumerate(widths):
        before = widths[level + 1] if level < levels - 1 else top
        for block in range(sizes.num_res_blocks + 1):
            _residual(out, f"decoder.up.{level}.block.{block}", before if block == 0 else width, width)
        if level:
            _conv(out, f"decoder.up.{level}.upsample.conv", width, width)
    _ends(out, "decoder", widths[0], sizes.out_channels)
    if sizes.quant_conv:
        _conv(out, "quant_conv", 2 * sizes.z_channels, 2 * sizes.z_channels, kernel=1)
        _conv(out, "post_quant_conv", sizes.z_channels, sizes.z_channels, kernel=1)
    return out


def _conv(out: Layout, name: str, rows: int, columns: int, kernel: int = 3) -> None:
    out[f"{name}.weight"] = (rows, columns, kernel, kernel)
    out[f"{name}.bias"] = (rows,)


def _norm(out: Layout, name: str, width: int) -> None:
    out[f"{name}.weight"] = (width,)
    out[f"{name}.bias"] = (width,)


def _residual(out: Layout, name: str, before: int, width: int) -> None:
    _norm(out, f"{name}.norm1", before)
    _conv(out, f"{name}.conv1", width, before)
    _norm(out, f"{name}.norm2", width)
    _conv(out, f"{name}.conv2", width, width)
    if before != width:
        _conv(out, f"{name}.nin_shortcut", width, before, kernel=1)


def _middle(out: Layout, name: str, width: int) -> None:
    _residual(out, f"{name}.block_1", width, width)
    _norm(out, f"{name}.attn_1.norm", width)
    for piece in ("q", "k", "v", "proj_out"):
        _conv(out, f"{name}.attn_1.{piece}", width, width, kernel=1)
    _residual(out, f"{name}.block_2", width, width)


def _ends(out: Layout, name: str, width: int, channels: int) -> None:
    _norm(out, f"{name}.norm_out", width)
    _conv(out, f"{name}.conv_out", channels, width)
