"""The FLUX.1 transformer as a file: its sizes read from a header, and the names and shapes they imply.

Torch-free, so that a model can be recognised and checked for completeness before anything heavy is imported;
:mod:`engine.models.flux_file` loads by the same sizes. Names are those of black-forest-labs' released files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engine.errors import ModelFileError
from engine.models.parts import Part, Shapes, agree, check_depth, stated_int, stated_ints, stated_params
from engine.text import safe_text

Layout = dict[str, tuple[int, ...]]

_AXES_OF_128 = (16, 56, 56)


def flux_sizes(part: Part) -> dict[str, Any]:
    """The fields of :class:`~engine.models.flux.FluxParams` for the transformer in ``part``.

    What shapes tell is read from them and must agree with ``params`` in the metadata; heads, rotary axes and theta
    come from ``params``, else they are FLUX's published ones. A tensor that a partial file lacks is replaced by
    FLUX.1's published size, so that the missing ones can be named.

    Raises:
        ModelFileError: params contradict shapes, or heads cannot be known.
    """
    header, shapes = part.header, Shapes(part.tensors)
    params = stated_params(header)
    depth, singles = shapes.blocks("double_blocks"), shapes.blocks("single_blocks")
    check_depth(header, (depth, singles))
    sizes: dict[str, Any] = {}
    for key, default, places in _TOLD_BY_SHAPES:
        found = shapes.find(*places)
        sizes[key] = found[0] if found else default
        if found:
            agree(header, params, key, found[0], found[1])
    sizes["depth"], sizes["depth_single_blocks"] = depth, singles
    agree(header, params, "depth", depth, f"double_blocks.{depth - 1}" if depth else "the absence of double_blocks")
    agree(header, params, "depth_single_blocks", singles, f"single_blocks.{singles - 1}")
    sizes["guidance_embed"] = any(name.startswith("guidance_in.") for name in part.tensors)
    said = "the presence of guidance_in" if sizes["guidance_embed"] else "the absence of guidance_in"
    agree(header, params, "guidance_embed", sizes["guidance_embed"], said)
    sizes["qkv_bias"] = _qkv_bias(part, shapes, params)
    sizes["mlp_ratio"] = _mlp_ratio(part, shapes, params, sizes["hidden_size"])
    sizes |= _heads(part, shapes, params, sizes["hidden_size"])
    return sizes


_TOLD_BY_SHAPES: tuple[tuple[str, int, tuple[tuple[str, int], ...]], ...] = (
    ("in_channels", 64, (("img_in.weight", 1),)),
    ("vec_in_dim", 768, (("vector_in.in_layer.weight", 1),)),
    ("context_in_dim", 4096, (("txt_in.weight", 1),)),
    (
        "hidden_size",
        3072,
        (
            ("img_in.weight", 0),
            ("txt_in.weight", 0),
            ("final_layer.linear.weight", 1),
            ("double_blocks.N.img_attn.proj.weight", 1),
            ("single_blocks.N.linear1.weight", 1),
            ("single_blocks.N.linear2.weight", 0),
        ),
    ),
    ("out_channels", 64, (("final_layer.linear.weight", 0),)),
)


def _qkv_bias(part: Part, shapes: Shapes, params: Mapping[str, Any]) -> bool:
    if not shapes.has("double_blocks.N.img_attn.qkv.weight"):
        return bool(params.get("qkv_bias", True))
    bias = shapes.has("double_blocks.N.img_attn.qkv.bias") or shapes.has("double_blocks.N.txt_attn.qkv.bias")
    agree(part.header, params, "qkv_bias", bias, f"the {'presence' if bias else 'absence'} of img_attn.qkv.bias")
    return bias


def _mlp_ratio(part: Part, shapes: Shapes, params: Mapping[str, Any], hidden: int) -> float:
    found = shapes.find(("double_blocks.N.img_mlp.0.weight", 0), ("double_blocks.N.img_mlp.2.weight", 1))
    if found is None:
        fused = shapes.find(("single_blocks.N.linear1.weight", 0))
        found = (fused[0] - 3 * hidden, fused[1]) if fused else None
    stated = params.get("mlp_ratio", 4.0)
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not 0 < stated < 1e3:
        agree(part.header, params, "mlp_ratio", "a number", "FLUX")
    if found is None or int(hidden * stated) == found[0]:
        return float(stated)
    ratio = found[0] / hidden if hidden else 0.0
    if "mlp_ratio" in params:
        agree(part.header, params, "mlp_ratio", ratio, found[1])
    # Rounding may leave int(hidden * ratio) one below; the next float up is as good a ratio.
    return ratio if int(hidden * ratio) == found[0] else math.nextafter(ratio, math.inf)


def _heads(part: Part, shapes: Shapes, params: Mapping[str, Any], hidden: int) -> dict[str, Any]:
    """Heads, rotary axes and theta: shapes tell a head's width only through the norms of queries and keys."""
    header = part.header
    found = shapes.find(
        ("single_blocks.N.norm.query_norm.scale", 0),
        ("double_blocks.N.img_attn.norm.query_norm.scale", 0),
        ("single_blocks.N.norm.key_norm.scale", 0),
    )
    width = found[0] if found else 128
    if width < 1 or hidden < width or hidden % width:
        raise _odd_heads(part, f"a head of {width} does not divide the hidden size {hidden}")
    heads = hidden // width
    agree(header, params, "num_heads", heads, f"{found[1]} ({hidden}/{width})" if found else f"hidden size {hidden}")
    axes = stated_ints(header, params, "axes_dim")
    if axes is None:
        if width != 128:
            raise _odd_heads(part, f"heads are {width} wide, FLUX's are 128, and no axes_dim says how to rotate them")
        axes = _AXES_OF_128
    if sum(axes) != width:
        agree(header, {"axes_dim": list(axes)}, "axes_dim", f"a sum of {width}", found[1] if found else "FLUX.1")
    if any(axis % 2 for axis in axes):
        raise _odd_heads(part, f"axes_dim {list(axes)} must be even: rotations act on pairs")
    return {"num_heads": heads, "axes_dim": tuple(axes), "theta": stated_int(header, params, "theta", 10_000)}


def _odd_heads(part: Part, detail: str) -> ModelFileError:
    return ModelFileError(
        "The transformer's heads are unknown",
        f"{safe_text(part.header.path, 400)}: {detail}",
        'Models of other sizes need their parameters as JSON under "params" in the header\'s metadata.',
    )


def flux_layout(sizes: Mapping[str, Any]) -> Layout:
    """Every tensor's name and shape (out, in) for these sizes, in the single-file layout."""
    dim, mlp = sizes["hidden_size"], int(sizes["hidden_size"] * sizes["mlp_ratio"])
    out: Layout = {}
    _linear(out, "img_in", dim, sizes["in_channels"])
    _linear(out, "txt_in", dim, sizes["context_in_dim"])
    for name, width in (("time_in", 256), ("vector_in", sizes["vec_in_dim"]), ("guidance_in", 256)):
        if name != "guidance_in" or sizes["guidance_embed"]:
            _linear(out, f"{name}.in_layer", dim, width)
            _linear(out, f"{name}.out_layer", dim, dim)
    head = dim // sizes["num_heads"]
    for block in range(sizes["depth"]):
        for stream in ("img", "txt"):
            at = f"double_blocks.{block}.{stream}"
            _linear(out, f"{at}_mod.lin", 6 * dim, dim)
            _linear(out, f"{at}_attn.qkv", 3 * dim, dim, bias=sizes["qkv_bias"])
            _linear(out, f"{at}_attn.proj", dim, dim)
            _linear(out, f"{at}_mlp.0", mlp, dim)
            _linear(out, f"{at}_mlp.2", dim, mlp)
            _norms(out, f"{at}_attn.norm", head)
    for block in range(sizes["depth_single_blocks"]):
        at = f"single_blocks.{block}"
        _linear(out, f"{at}.linear1", 3 * dim + mlp, dim)
        _linear(out, f"{at}.linear2", dim, dim + mlp)
        _linear(out, f"{at}.modulation.lin", 3 * dim, dim)
        _norms(out, f"{at}.norm", head)
    _linear(out, "final_layer.linear", sizes["out_channels"], dim)
    _linear(out, "final_layer.adaLN_modulation.1", 2 * dim, dim)
    return out


def _linear(out: Layout, name: str, rows: int, columns: int, bias: bool = True) -> None:
    out[f"{name}.weight"] = (rows, columns)
    if bias:
        out[f"{name}.bias"] = (rows,)


def _norms(out: Layout, name: str, width: int) -> None:
    out[f"{name}.query_norm.scale"] = (width,)
    out[f"{name}.key_norm.scale"] = (width,)


def flux_variant(sizes: Mapping[str, Any]) -> tuple[str, str]:
    """Variant (dev or schnell by guidance; fill and canny/depth by input channels) and a note on what is unusual."""
    name = "dev" if sizes["guidance_embed"] else "schnell"
    inputs, depth = sizes["in_channels"], (sizes["depth"], sizes["depth_single_blocks"])
    notes = []
    if inputs != sizes["out_channels"]:
        name = {384: "fill", 128: "canny/depth"}.get(inputs, name)
        notes.append(f"{inputs} input channels")
    if depth != (19, 38):
        notes.append(f"{depth[0]} double and {depth[1]} single blocks")
    return name, ", ".join(notes)
