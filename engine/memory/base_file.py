"""Makes blocks, input and output layers and modulation layers from a FLUX.1 checkpoint, one tensor at a time.

In: a checked part of a file. Out: weights as :mod:`engine.memory.frozen` has them, packed on the compute device as
they come; what was read of the file is dropped before the next tensor is. The one place that knows how names of the
released layout and the fields of a block's weights belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from engine.memory.frozen import (
    BlockWeights,
    Dense,
    DoubleWeights,
    FrozenLinear,
    SingleWeights,
    StreamWeights,
)
from engine.memory.precision import Precision, Products, blank, pack, packed8, products_for
from engine.memory.products8 import Choice
from engine.models.flux import Embedder, FluxParams
from engine.models.flux_file import layout
from engine.models.modulation import modulation_places
from engine.models.parts import Part
from engine.models.weights import PartReader

Progress = Callable[[int, int], None]
_Linear = Callable[[str], FrozenLinear]
_Vector = Callable[[str], Tensor]
AFTER_GELU = (".linear2", "_mlp.2")
"""Linears (by the ends of their released names) whose input comes from a GELU: few channels are far larger than the
rest, which one scale a token fits badly. They multiply it wide until a measurement says otherwise."""
_PIECE = 2**24
"""Elements looked through for NaN at a time."""


class InputOutput(nn.Module):
    """The layers before and after the blocks, under their released names; never packed."""

    def __init__(self, params: FluxParams) -> None:
        super().__init__()
        dim = params.hidden_size
        self.img_in = nn.Linear(params.in_channels, dim)
        self.time_in = Embedder(256, dim)
        self.vector_in = Embedder(params.vec_in_dim, dim)
        self.guidance_in = Embedder(256, dim) if params.guidance_embed else None
        self.txt_in = nn.Linear(params.context_in_dim, dim)
        self.final_layer = nn.ModuleDict({"linear": nn.Linear(dim, params.out_channels)})


def products_of(params: FluxParams, choice: Choice) -> dict[str, Products]:
    """What the linears of all blocks begin with, by their released names.

    Made once for a base: every copy of a linear, the ones read again after a release too, holds the one object, so
    that what is decided later reaches all of them.
    """
    return {
        name: products_for((shape[0], shape[1]), choice, outliers=name.endswith(AFTER_GELU))
        for weight, shape in layout(params).items()
        if _is_block_matrix(weight) and (name := weight.removesuffix(".weight"))
    }


def block_templates(
    params: FluxParams, precision: Precision, dtype: torch.dtype, products: Mapping[str, Products] | None = None
) -> list[BlockWeights]:
    """All blocks as :func:`load_base` will make them, without memory (on the meta device).

    ``products`` are theirs, from :func:`products_of`; without them they multiply wide.
    """
    shapes = layout(params)
    by_name = products_of(params, Choice("wide")) if products is None else products

    def linear(name: str) -> FrozenLinear:
        rows, columns = shapes[f"{name}.weight"]
        return blank((rows, columns), f"{name}.bias" in shapes, precision, dtype, by_name[name])

    def vector(name: str) -> Tensor:
        return torch.empty(shapes[name], dtype=dtype, device="meta")

    return [_block(params, block, linear, vector) for block in range(params.depth + params.depth_single_blocks)]


def _block(params: FluxParams, block: int, linear: _Linear, vector: _Vector) -> BlockWeights:
    """A block put together from what ``linear`` and ``vector`` give for names of the released layout."""
    if block >= params.depth:
        at = f"single_blocks.{block - params.depth}"
        scales = (vector(f"{at}.norm.query_norm.scale"), vector(f"{at}.norm.key_norm.scale"))
        return SingleWeights(linear(f"{at}.linear1"), linear(f"{at}.linear2"), *scales)

    def stream(name: str) -> StreamWeights:
        at = f"double_blocks.{block}.{name}"
        norms = f"{at}_attn.norm"
        return StreamWeights(
            linear(f"{at}_attn.qkv"), linear(f"{at}_attn.proj"), linear(f"{at}_mlp.0"), linear(f"{at}_mlp.2"),
            vector(f"{norms}.query_norm.scale"), vector(f"{norms}.key_norm.scale"),
        )  # fmt: skip

    return DoubleWeights(stream("img"), stream("txt"))


class BaseFile:
    """An open checkpoint from which layers and blocks are made; a context manager.

    Args:
        part: complete, with the tensors of this layout.
        params: its sizes.
        device: where linears are packed.
        dtype: what the base computes in.
        precision: of the blocks' weights.
        products: how packed linears multiply, from :func:`products_of`.
        progress: told bytes of the checkpoint done and in all.
    """

    def __init__(
        self,
        part: Part,
        params: FluxParams,
        device: torch.device,
        dtype: torch.dtype,
        precision: Precision,
        products: Mapping[str, Products],
        progress: Progress | None = None,
    ) -> None:
        self.part, self.params = part, params
        self.device, self.dtype = device, dtype
        self.precision, self.products = precision, products
        self._progress = progress
        self._reader = PartReader(part)
        self._done = self._total = 0

    def __enter__(self) -> BaseFile:
        """Nothing but itself."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Close the file."""
        self._reader.__exit__(*raised)

    def refuse_changed(self) -> None:
        """Look whether the file is as it was when it was opened.

        Raises:
            ModelFileError: it is not.
        """
        self._reader.refuse_changed()

    def count(self, with_modulation: bool) -> None:
        """Say what will be read."""
        apart = () if with_modulation else tuple(f"{name}." for name in self._modulation_names())
        self._total = sum(
            info.end - info.begin for name, info in self.part.tensors.items() if not name.startswith(apart)
        )

    def told(self, name: str) -> None:
        """Tell that a tensor of the checkpoint is done, wherever its values came from."""
        info = self.part.tensors[name]
        self._done += info.end - info.begin
        if self._progress is not None:
            self._progress(self._done, self._total)

    def input_output(self) -> InputOutput:
        """The layers before and after the blocks."""
        with torch.device("meta"):
            module = InputOutput(self.params)
        module.load_state_dict({name: self.vector(name) for name in module.state_dict()}, assign=True)
        module.requires_grad_(False)
        return module.eval()

    def modulation(self, device: torch.device | str) -> dict[str, Dense]:
        """The modulation layers, in ``dtype`` on ``device``."""
        return {
            name: Dense(self.vector(f"{name}.weight", device), self.vector(f"{name}.bias", device))
            for name in self._modulation_names()
        }

    def _modulation_names(self) -> list[str]:
        return [place.name for place in modulation_places(self.params.depth, self.params.depth_single_blocks)]

    def vector(self, name: str, device: torch.device | str | None = None) -> Tensor:
        """Any tensor in the compute dtype."""
        value = self._reader.wide(name, device or self.device, self.dtype)
        self.told(name)
        return value

    def direct(self) -> bool:
        """Whether the file holds the blocks as they are wanted, so that a packed copy would save nothing."""
        if self.precision == "auto":
            return True
        weights = [info for name, info in self.part.tensors.items() if _is_block_matrix(name)]
        return self.precision == "fp8" and all(info.dtype == "F8_E4M3" for info in weights)

    def block(self, block: int, into: Mapping[str, Tensor] | None) -> BlockWeights:
        """A block packed on the device, or in ``into``, to which each linear goes as soon as it is packed.

        What needs no packing goes there without a way through the device.
        """
        if into is None:
            return _block(self.params, block, self.linear, self.vector)
        fields = block_fields(block, self.params)
        place = next(iter(into.values())).device

        def linear(name: str) -> FrozenLinear:
            return _moved(self.linear(name, place), fields[name], into)

        def vector(name: str) -> Tensor:
            return into[fields[name]].copy_(self.vector(name, place))

        return _block(self.params, block, linear, vector)

    def linear(self, name: str, place: torch.device | None = None) -> FrozenLinear:
        """A linear of a block, packed on the device; one that needs no packing on ``place``, if one is given."""
        weight_name, bias_name = f"{name}.weight", f"{name}.bias"
        info = self.part.tensors[weight_name]
        direct = self.precision == "auto" or (self.precision == "fp8" and info.dtype == "F8_E4M3")
        device = place if direct and place is not None else self.device
        bias = self.vector(bias_name, device) if bias_name in self.part.tensors else None
        if self.precision == "auto":
            return Dense(self.vector(weight_name, device), bias)
        packed = self._as_stored(weight_name, bias, device) if direct else self._packed(weight_name, bias)
        self.told(weight_name)
        return packed

    def _packed(self, name: str, bias: Tensor | None) -> FrozenLinear:
        # Scales of fp8 files are multiplied in float32: rounding to bfloat16 before packing would add to their error.
        wide = {"F16": torch.float16, "BF16": torch.bfloat16}.get(self.part.tensors[name].dtype, torch.float32)
        weight = self._reader.wide(name, self.device, wide)
        if not all(bool(piece.isfinite().all()) for piece in weight.reshape(-1).split(_PIECE)):
            raise self._reader.broken(name)
        return pack(weight, bias, self.precision, self.dtype, self.products[name.removesuffix(".weight")])

    def _as_stored(self, name: str, bias: Tensor | None, device: torch.device) -> FrozenLinear:
        """An fp8 matrix of the file with its scale (1 where it has none), one a row or one for all."""
        raw, scale = self._reader.raw(name)
        codes = raw.to(device)
        if bool(((codes.view(torch.uint8) & 0x7F) == 0x7F).any()):  # e4m3's only NaN; it has no infinity
            raise self._reader.broken(name)
        scale = torch.ones(1) if scale is None else scale
        if scale.numel() not in (1, raw.shape[0]):
            raise self._reader.unknown_scales(name)
        if not bool(scale.isfinite().all()):
            raise self._reader.broken(name)
        rows = scale.reshape(-1).expand(raw.shape[0]).contiguous().to(device)
        return packed8(codes, rows, bias, self.products[name.removesuffix(".weight")])


def _moved(linear: FrozenLinear, name: str, into: Mapping[str, Tensor]) -> FrozenLinear:
    return linear.with_tensors({key: into[f"{name}.{key}"].copy_(tensor) for key, tensor in linear.tensors().items()})


def block_fields(block: int, params: FluxParams) -> dict[str, str]:
    """The name in ``block_tensors`` (``img.qkv``) for each name of the released layout in this block."""
    if block >= params.depth:
        at = f"single_blocks.{block - params.depth}"
        return {f"{at}.{name}": name for name in ("linear1", "linear2")} | {
            f"{at}.norm.query_norm.scale": "query_scale",
            f"{at}.norm.key_norm.scale": "key_scale",
        }
    names = {"attn.qkv": "qkv", "attn.proj": "proj", "mlp.0": "mlp_in", "mlp.2": "mlp_out"} | {
        "attn.norm.query_norm.scale": "query_scale",
        "attn.norm.key_norm.scale": "key_scale",
    }
    return {
        f"double_blocks.{block}.{stream}_{name}": f"{stream}.{field}"
        for stream in ("img", "txt")
        for name, field in names.items()
    }


def _is_block_matrix(name: str) -> bool:
    """Whether a tensor is the weight of a linear that is packed."""
    if not name.startswith(("double_blocks.", "single_blocks.")) or not name.endswith(".weight"):
        return False
    return not name.removesuffix(".lin.weight").endswith(("_mod", ".modulation"))
