"""How adapted linears are called in kohya's and in diffusers' files, and how their matrices turn into each other.

Ours are the dotted names of the released single file (``double_blocks.0.img_attn.qkv``), whatever wraps the modules.
kohya joins them with underscores; diffusers splits the fused linears into several. The tables follow
``scripts/convert_flux_to_diffusers.py`` of diffusers. Pure functions on dictionaries of tensors; files are
:mod:`engine.lora.formats`'s.

An update is ``scale * up @ down`` with ``scale = alpha / rank``. Fused to split: the parts share ``down`` and slice
``up`` by rows. Split to fused: downs one below the other, ups on the diagonal; the rank grows by the number of parts
and alpha with it, so that the scale stays.

Alpha in diffusers' layout: readers differ. diffusers and older trainers' tools take a missing alpha for the rank;
ComfyUI reads ``.alpha``; only diffusers reads the header's ``lora_adapter_metadata``, and refuses it together with
``.alpha``. So the scale is multiplied into ``lora_A`` and ``.alpha`` says the rank: right for every reader. Into A,
not B, because an update's small numbers are in B, where float16 would run out of digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import ModelFileError
from engine.lora.targets import Target

KOHYA_PREFIX = "lora_unet_"
DIFFUSERS_PREFIX = "transformer."


@dataclass(frozen=True)
class Place:
    """A linear of a block: its kind, and the diffusers linears it consists of, by rows."""

    kind: str
    parts: tuple[str, ...]


PLACES: dict[str, dict[str, Place]] = {
    "double_blocks": {
        "img_mod.lin": Place("img_mod", ("norm1.linear",)),
        "img_attn.qkv": Place("img_attn", ("attn.to_q", "attn.to_k", "attn.to_v")),
        "img_attn.proj": Place("img_attn", ("attn.to_out.0",)),
        "img_mlp.0": Place("img_mlp", ("ff.net.0.proj",)),
        "img_mlp.2": Place("img_mlp", ("ff.net.2",)),
        "txt_mod.lin": Place("txt_mod", ("norm1_context.linear",)),
        "txt_attn.qkv": Place("txt_attn", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
        "txt_attn.proj": Place("txt_attn", ("attn.to_add_out",)),
        "txt_mlp.0": Place("txt_mlp", ("ff_context.net.0.proj",)),
        "txt_mlp.2": Place("txt_mlp", ("ff_context.net.2",)),
    },
    "single_blocks": {
        "modulation.lin": Place("single_mod", ("norm.linear",)),
        "linear1": Place("single", ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")),
        "linear2": Place("single", ("proj_out",)),
    },
}
"""Every linear that a LoRA file may adapt, by block list and name within the block."""

_BLOCKS = {"double_blocks": "transformer_blocks", "single_blocks": "single_transformer_blocks"}
_MODULE = re.compile(r"^(double_blocks|single_blocks)\.(0|[1-9]\d{0,3})\.(.+)$")
_KOHYA = re.compile(r"^lora_unet_(double_blocks|single_blocks)_(0|[1-9]\d{0,3})_(.+)$")
_DIFFUSERS = re.compile(r"^transformer\.(transformer_blocks|single_transformer_blocks)\.(0|[1-9]\d{0,3})\.(.+)$")

_KOHYA_RESTS = {(blocks, rest.replace(".", "_")): rest for blocks, places in PLACES.items() for rest in places}
_DIFFUSERS_RESTS = {
    (_BLOCKS[blocks], part): (blocks, rest, number)
    for blocks, places in PLACES.items()
    for rest, place in places.items()
    for number, part in enumerate(place.parts)
}


@dataclass(frozen=True)
class Factors:
    """One low-rank update ``alpha / rank * up @ down``: down (r, in), up (out, r), float32."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """Rows of down."""
        return self.down.shape[0]


def place_of(module: str) -> Place:
    """Where ``module`` (our name) stands.

    Raises:
        ModelFileError: it is no linear of a FLUX block.
    """
    hit = _MODULE.match(module)
    place = PLACES[hit[1]].get(hit[3]) if hit else None
    if place is None:
        raise ModelFileError("A LoRA module has no name in other programs", f"{module} is no linear of a FLUX block")
    return place


def place_order(module: str) -> tuple[str, int, int]:
    """A key that sorts modules as they stand in the transformer: double blocks first, by number."""
    blocks, index, rest = module.split(".", 2)
    return blocks, int(index), list(PLACES[blocks]).index(rest)


def kohya_name(module: str) -> str:
    """kohya's name of our ``module``, without the matrix."""
    return KOHYA_PREFIX + module.replace(".", "_")


def module_of_kohya(name: str) -> str | None:
    """Our name of kohya's ``name``, or None where it is not one of a FLUX block."""
    hit = _KOHYA.match(name)
    rest = _KOHYA_RESTS.get((hit[1], hit[3])) if hit else None
    return f"{hit[1]}.{int(hit[2])}.{rest}" if hit and rest else None


def diffusers_names(module: str) -> list[str]:
    """diffusers' names of the linears that our ``module`` consists of, in the order of its rows."""
    parts = place_of(module).parts
    blocks, index, _ = module.split(".", 2)
    return [f"{DIFFUSERS_PREFIX}{_BLOCKS[blocks]}.{index}.{part}" for part in parts]


def module_of_diffusers(name: str) -> tuple[str, int] | None:
    """Our module and the number of the part that diffusers calls ``name``, or None where there is none."""
    hit = _DIFFUSERS.match(name)
    found = _DIFFUSERS_RESTS.get((hit[1], hit[3])) if hit else None
    return (f"{found[0]}.{int(hit[2])}.{found[1]}", found[2]) if hit and found else None


def part_rows(module: str, in_features: int, out_features: int) -> list[int]:
    """How many of the module's output rows each diffusers part has; q, k and v are as wide as the hidden size."""
    parts = len(place_of(module).parts)
    if parts == 4:
        return [in_features] * 3 + [out_features - 3 * in_features]
    return [out_features // parts] * parts


def to_kohya(state: Mapping[str, Tensor], targets: Iterable[Target]) -> dict[str, Tensor]:
    """Our state in kohya's names, with an alpha (float32 scalar) for every module."""
    tensors = {}
    for target in targets:
        name = kohya_name(target.name)
        tensors[f"{name}.lora_down.weight"] = state[f"{target.name}.lora_down.weight"]
        tensors[f"{name}.lora_up.weight"] = state[f"{target.name}.lora_up.weight"]
        tensors[f"{name}.alpha"] = torch.tensor(target.alpha, dtype=torch.float32)
    return tensors


def to_diffusers(state: Mapping[str, Tensor], targets: Iterable[Target]) -> dict[str, Tensor]:
    """Our state in diffusers' names; the scale is in ``lora_A`` and ``.alpha`` is the rank (see above)."""
    tensors = {}
    for target in targets:
        down = state[f"{target.name}.lora_down.weight"] * target.scale
        ups = state[f"{target.name}.lora_up.weight"].split(
            part_rows(target.name, target.in_features, target.out_features)
        )
        for name, up in zip(diffusers_names(target.name), ups, strict=True):
            tensors[f"{name}.lora_A.weight"] = down
            tensors[f"{name}.lora_B.weight"] = up
            tensors[f"{name}.alpha"] = torch.tensor(float(target.rank), dtype=torch.float32)
    return tensors


def from_kohya(pairs: Mapping[str, Factors]) -> dict[str, Factors]:
    """Rename pairs in kohya's names to our modules.

    Raises:
        ModelFileError: a name is none of a FLUX block.
    """
    named = {name: module_of_kohya(name) for name in pairs}
    _refuse_strangers([name for name, module in named.items() if module is None])
    return {module: pairs[name] for name, module in named.items() if module is not None}


def from_diffusers(pairs: Mapping[str, Factors]) -> dict[str, Factors]:
    """Put pairs in diffusers' names together into our modules.

    Raises:
        ModelFileError: a name is none of a FLUX block, or the parts of a module do not belong together.
    """
    named = {name: module_of_diffusers(name) for name in pairs}
    _refuse_strangers([name for name, found in named.items() if found is None])
    parts: dict[str, dict[int, Factors]] = {}
    for name, found in named.items():
        if found is not None:
            parts.setdefault(found[0], {})[found[1]] = pairs[name]
    return {module: _join(module, given) for module, given in parts.items()}


def _join(module: str, given: Mapping[int, Factors]) -> Factors:
    """Fuse the parts of ``module`` that a file holds; rows of absent parts get no update."""
    rows = _rows_of_parts(module, given)
    first = next(iter(given.values()))
    if len(rows) == 1:
        return first
    shared = all(part.alpha == first.alpha and torch.equal(part.down, first.down) for part in given.values())
    if shared:
        up = torch.cat(
            [given[n].up if n in given else first.up.new_zeros(rows[n], first.rank) for n in range(len(rows))]
        )
        return Factors(first.down, up, first.alpha)
    present = [given[n] for n in sorted(given)]
    scales = [part.alpha / part.rank for part in present]
    rank = sum(part.rank for part in present)
    even = all(scale == scales[0] for scale in scales)
    up = first.up.new_zeros(sum(rows), rank)
    column = 0
    for number in sorted(given):
        part, top = given[number], sum(rows[:number])
        up[top : top + rows[number], column : column + part.rank] = part.up * (
            1.0 if even else part.alpha / part.rank
        )
        column += part.rank
    return Factors(torch.cat([part.down for part in present]), up, rank * scales[0] if even else float(rank))


def _rows_of_parts(module: str, given: Mapping[int, Factors]) -> list[int]:
    """Output rows of every part, told by those present and by the width of the input; checked against them."""
    count = len(place_of(module).parts)
    widths = {part.down.shape[1] for part in given.values()}
    width = widths.pop()
    if count == 1:
        return [given[0].up.shape[0]]
    mlp = given[3].up.shape[0] if 3 in given else 4 * width
    rows = [width, width, width, mlp][:count]
    wrong = [n for n, part in given.items() if part.up.shape[0] != rows[n]]
    if widths or wrong:
        shapes = {n: (part.down.shape[1], part.up.shape[0]) for n, part in sorted(given.items())}
        raise ModelFileError(
            "The LoRA's q, k and v do not belong to one FLUX linear",
            f"{module}: inputs and outputs of its parts are {shapes}",
            "The file was made for another kind of model.",
        )
    return rows


def _refuse_strangers(names: list[str]) -> None:
    if not names:
        return
    first = names[0]
    if any(name.startswith(("lora_te", "text_encoder")) for name in names):
        first = next(name for name in names if name.startswith(("lora_te", "text_encoder")))
        hint = "It trains a text encoder too; only the transformer's part is supported."
    else:
        hint = "Only LoRAs on the blocks of a FLUX.1 transformer are supported."
    raise ModelFileError(
        "The LoRA has modules that this model has not",
        f"{len(names)} unknown modules, such as {first}",
        hint,
    )
