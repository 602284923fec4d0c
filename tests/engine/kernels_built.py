"""Compiles every Triton kernel to machine code for several GPUs, none of which need be there; prints JSON.

Started by test_blocks_kernels_built in a process of its own: there the interpreter must be off. Full-size shapes, the
alignment that the launches give. Spills and unvectorised access would show in the code.
"""

from __future__ import annotations

import json
import re
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from engine.blocks import kernels
from engine.blocks.kernels_traffic import ACCESS

CONSTANTS = {"HEADS": 24, "K": 128, "ROWS": 32, "WIDE": 128, "FOLD": True, "RESIDUAL": True}
FLOATS = {"mean", "rstd", "step", "rotary"}
ELEMENTS = {75: "*fp16", 90: "*bf16", 120: "*bf16"}
"""Turing, Hopper, Blackwell of GeForce; the first has no bfloat16."""


def signature(kernel: Any, element: str, block: int) -> tuple[dict[str, str], dict[str, Any]]:
    kinds, constants = {}, {}
    for name in kernel.arg_names:
        if name in CONSTANTS or name == "BLOCK":
            kinds[name], constants[name] = "constexpr", CONSTANTS.get(name, block)
        elif name in ("width", "rotary_part") or re.search(r"_[blh]$", name):
            kinds[name] = "i32"
        else:
            kinds[name] = "*i8" if name == "packed" else "*fp32" if name in FLOATS else element
    return kinds, constants


def build(name: str, capability: int) -> dict[str, Any]:
    kernel = getattr(kernels, name)
    elementwise = name.startswith(("gelu", "gate"))
    kinds, constants = signature(kernel, ELEMENTS[capability], 2048 if elementwise else 4096)
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(kinds.values()) if kind != "constexpr"}
    source = ASTSource(kernel, kinds, constants, aligned)
    target = GPUTarget("cuda", capability, 32)
    built = triton.compile(source, target=target, options={"num_warps": 4 if elementwise else 8})
    code = built.asm["ptx"]
    return {
        "bytes": len(built.asm["cubin"]),
        "loads": len(re.findall(r"ld\.global", code)),
        "wide loads": len(re.findall(r"ld\.global[^;]*\.v[48]", code)),
        "stores": len(re.findall(r"st\.global", code)),
        "wide stores": len(re.findall(r"st\.global[^;]*\.v[48]", code)),
        "spills": len(re.findall(r"[ls][dt]\.local", code)),
    }


if __name__ == "__main__":
    print(json.dumps({f"{name} sm_{arch}": build(name, arch) for name in ACCESS for arch in ELEMENTS}))
