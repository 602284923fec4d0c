"""Compiles the int8 product to machine code for several GPUs, none of which need be there; prints JSON."""

from __future__ import annotations

import json
import re
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from engine.memory.kernels8 import _GROUP, TILE_K, TILE_M, TILE_N, scaled_product

POINTERS = {
    "tokens": "*i8", "codes": "*i8", "token_scale": "*fp32", "scale": "*fp32", "bias": "*bf16", "out": "*bf16",
}  # fmt: skip
CAPABILITIES = (80, 86, 89, 90, 100, 120)


def build(capability: int, way: str) -> dict[str, Any]:
    """Code for one card and one layout of the second factor, at the width of FLUX.1."""
    constants: dict[str, Any] = {
        "K": 3072, "SCALED": way == "by rows", "BIASED": way == "by rows", "TN": TILE_N, "TM": TILE_M, "TK": TILE_K,
        "GROUP": _GROUP, "codes_k" if way == "by rows" else "codes_m": 1,
    }  # fmt: skip
    kinds = {
        name: "constexpr" if name in constants else POINTERS.get(name, "i32") for name in scaled_product.arg_names
    }
    aligned = {
        (at,): [["tt.divisibility", 16]]
        for at, (name, kind) in enumerate(kinds.items())
        if kind != "constexpr" and name != "N"
    }
    source = ASTSource(scaled_product, kinds, constants, aligned)
    built = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 8, "num_stages": 3}
    )
    code = built.asm["ptx"]
    return {
        "tensor core": len(re.findall(r"mma[\w.:]*\.s8", code)),
        "spills": len(re.findall(r"[ls][dt]\.local", code)),
        "shared": built.metadata.shared,
    }


if __name__ == "__main__":
    print(
        json.dumps(
            {f"sm_{arch} {way}": build(arch, way) for arch in CAPABILITIES for way in ("by rows", "by columns")}
        )
    )
