"""What a card does at most: copies both ways, products at FLUX's six shapes, attention by backend.

Each function yields plain records, one a measurement; what a card cannot do is a record with the reason. On a CPU the
same program runs at small sizes, to be tested.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

Record = dict[str, Any]

SHAPES = {
    "qkv": (3072, 9216), "proj": (3072, 3072), "mlp_in": (3072, 12288), "mlp_out": (12288, 3072),
    "linear1": (3072, 21504), "linear2": (15360, 3072),
}  # fmt: skip
"""Inputs and outputs of a block's linears."""

TOKENS = (1536, 4608)
"""512 and 1024 px with 512 tokens of text."""

BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time of ``work`` after one run that does not count; by events on a GPU."""
    work()
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            work()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1000)
        else:
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def copies(device: torch.device, tiny: bool) -> Iterator[Record]:
    """GB/s of a double block's bf16 weights, to the card and back, from pinned and from pageable memory."""
    size = 10**6 if tiny else 453_000_000
    on_gpu = device.type == "cuda"
    there = torch.empty(size, dtype=torch.uint8, device=device)
    for kind in ("pinned", "pageable"):
        here = torch.empty(size, dtype=torch.uint8, pin_memory=on_gpu and kind == "pinned")
        for way, target, source in (("to the card", there, here), ("to the host", here, there)):
            took = seconds(lambda t=target, s=source: t.copy_(s, non_blocking=True), device, 5)
            yield {"what": "copy", "memory": kind, "way": way, "gb_s": size / took / 1e9}


def products(device: torch.device, tiny: bool) -> Iterator[Record]:
    """TFLOP/s (int8: TOP/s) at every shape, by precision."""
    for tokens in (64,) if tiny else TOKENS:
        for name, (inputs, outputs) in SHAPES.items():
            inputs, outputs = (inputs // 48, outputs // 48) if tiny else (inputs, outputs)
            for precision in ("bf16", "fp8", "int8"):
                record: Record = {"what": "product", "shape": name, "tokens": tokens, "precision": precision}
                try:
                    took = seconds(_product(precision, tokens, inputs, outputs, device), device, 3 if tiny else 20)
                    record["tflop_s"] = 2.0 * tokens * inputs * outputs / took / 1e12
                except (RuntimeError, NotImplementedError, ValueError) as err:
                    record["problem"] = str(err).splitlines()[0][:200]
                yield record


def _product(precision: str, tokens: int, inputs: int, outputs: int, device: torch.device) -> Callable[[], Tensor]:
    """One product of random factors; the weight lies as it is stored, (outputs, inputs)."""
    x = torch.randn(tokens, inputs, device=device)
    weight = torch.randn(outputs, inputs, device=device)
    if precision == "bf16":
        wide, matrix = x.bfloat16(), weight.bfloat16()
        return lambda: wide @ matrix.mT
    if precision == "int8":
        few, packed = (value.clamp(-3, 3).mul(42).round().to(torch.int8) for value in (x, weight))
        return lambda: torch._int_mm(few, packed.mT)
    few, packed = x.to(torch.float8_e4m3fn), weight.to(torch.float8_e4m3fn)
    rows = torch.ones(tokens, 1, device=device)
    columns = torch.ones(1, outputs, device=device)
    return lambda: torch._scaled_mm(few, packed.mT, rows, columns, out_dtype=torch.bfloat16, use_fast_accum=True)


def attention(device: torch.device, tiny: bool) -> Iterator[Record]:
    """Milliseconds of attention forward and backward by backend, 24 heads of 128."""
    heads, width = (2, 32) if tiny else (24, 128)
    for tokens in (64,) if tiny else TOKENS:
        for name, backend in BACKENDS.items():
            record: Record = {"what": "attention", "backend": name, "tokens": tokens}
            try:
                record |= _attention(tokens, heads, width, backend, device)
            except (RuntimeError, torch.OutOfMemoryError) as err:
                record["problem"] = str(err).splitlines()[0][:200]
            yield record


def _attention(tokens: int, heads: int, width: int, backend: SDPBackend, device: torch.device) -> Record:
    q, k, v = (
        torch.randn(1, heads, tokens, width, device=device, dtype=torch.bfloat16, requires_grad=True)
        for _ in range(3)
    )
    with sdpa_kernel(backend):
        forward = seconds(lambda: scaled_dot_product_attention(q, k, v), device, 10)
        out = scaled_dot_product_attention(q, k, v)
        grad = torch.randn_like(out)
        backward = seconds(lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True), device, 10)
    flop = 4.0 * heads * tokens**2 * width
    return {
        "forward_ms": forward * 1000,
        "backward_ms": backward * 1000,
        "forward_tflop_s": flop / forward / 1e12,
        "backward_tflop_s": 2.5 * flop / backward / 1e12,
    }


def host_overlap(device: torch.device, tiny: bool) -> Iterator[Record]:
    """How much slower products get while a copy from the host runs beside them."""
    if device.type != "cuda":
        return
    multiply = _product("bf16", 256 if tiny else 4608, 3072, 12288, device)
    alone = seconds(lambda: [multiply() for _ in range(20)], device, 5)
    side = torch.cuda.Stream()
    here = torch.empty(453_000_000, dtype=torch.uint8, pin_memory=True)
    there = torch.empty_like(here, device=device)

    def both() -> None:
        with torch.cuda.stream(side):
            there.copy_(here, non_blocking=True)
        for _ in range(20):
            multiply()

    yield {"what": "overlap", "alone_s": alone, "beside_a_copy_s": seconds(both, device, 5)}


PARTS: dict[str, Callable[[torch.device, bool], Iterator[Record]]] = {
    "copies": copies,
    "products": products,
    "attention": attention,
    "overlap": host_overlap,
}
