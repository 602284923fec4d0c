"""Packed linears: exact integer products, the folded scales, both ways to compute, and what a card can do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.errors import ConfigError
from engine.memory import products8
from engine.memory.calibration import calibrate, decide, decisions, in_words, measure, measure_grad, packed_linears
from engine.memory.frozen import DoubleWeights, FrozenLinear, SingleWeights, StreamWeights
from engine.memory.precision import Fp8, Int8, Nf4, Packed8, Products, blank, pack, products_for, require
from engine.memory.products8 import FP8, INT8, Card, Choice, base_dtype, choose, quantise_rows

N, IN, OUT = 48, 96, 160
PACKED = ("int8", "fp8", "nf4")
FAST = Products(True, True, True)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def uneven(seed: int = 1) -> Tensor:
    """A weight whose output channels differ ten thousandfold in size."""
    return draw(OUT, IN, seed=seed) * torch.logspace(-3, 1, OUT)[:, None]


def make(precision: str, products: Products | None = None, dtype: torch.dtype = torch.float32) -> FrozenLinear:
    bias = draw(OUT, seed=2)
    return pack(uneven(), bias, precision, dtype, products)  # type: ignore[arg-type]


def test_int8_sums_are_exact_integers() -> None:
    """Rows that reach 127 with whole numbers are their own codes: the product is integer arithmetic."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(-126, 127, (N, IN), generator=generator)
    x[:, 0] = 127
    codes = torch.randint(-127, 128, (OUT, IN), generator=generator, dtype=torch.int8)
    ones = torch.ones(OUT)
    assert torch.equal(products8.multiply(x.float(), codes, ones, None).long(), x @ codes.long().T)
    grad = torch.randint(-126, 127, (N, OUT), generator=generator)
    grad[:, 5] = -127
    assert torch.equal(products8.multiply_back(grad.float(), codes, ones).long(), grad @ codes.long())


@pytest.mark.parametrize("kind", [INT8, FP8])
def test_products_are_those_of_the_codes(kind: torch.dtype) -> None:
    x, grad = draw(N, IN), draw(N, OUT, seed=4)
    codes, scale = (
        part if part.ndim == 2 and part.shape[1] > 1 else part[:, 0] for part in quantise_rows(uneven(), kind)
    )
    tokens, token_scale = quantise_rows(x, kind)
    wanted = (tokens.double() @ codes.double().T) * token_scale.double() * scale.double() + 0.5
    assert relative(products8.multiply(x, codes, scale, torch.full((OUT,), 0.5)), wanted) < 1e-6
    tokens, token_scale = quantise_rows(grad * scale, kind)
    wanted = (tokens.double() @ codes.double()) * token_scale.double()
    assert relative(products8.multiply_back(grad, codes, scale), wanted) < 1e-6


@pytest.mark.parametrize(("kind", "limit"), [("int8", 0.02), ("fp8", 0.05)])
def test_folded_scales_keep_uneven_channels_accurate(kind: str, limit: float) -> None:
    """A channel ten thousand times smaller gets a gradient as much larger: both must count."""
    linear = make(kind, FAST)
    assert isinstance(linear, Packed8)
    grad = draw(N, OUT, seed=5) / linear.scale
    assert relative(linear.input_grad(grad), grad @ linear.dequantize()) < limit
    codes, scale = quantise_rows(grad, linear.weight.dtype)
    unfolded = (codes.float() * scale) @ linear.dequantize()
    if kind == "int8":  # fp8 codes have an exponent of their own, and bear more
        assert relative(unfolded, grad @ linear.dequantize()) > 5 * limit


@pytest.mark.parametrize("kind", [INT8, FP8])
def test_pieces_change_no_bit(kind: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    x, grad = draw(N, IN), draw(N, OUT, seed=4)
    linear = pack(uneven(), None, "int8" if kind == INT8 else "fp8", torch.float32, FAST)
    whole = linear.forward(x), linear.input_grad(grad)
    monkeypatch.setattr(products8, "_PIECE", 5 * IN)
    monkeypatch.setattr(products8, "_COLUMNS", 32)
    pieces = linear.forward(x), linear.input_grad(grad)
    again = pack(uneven(), None, "int8" if kind == INT8 else "fp8", torch.float32, FAST)
    assert torch.equal(whole[0], pieces[0])
    assert torch.equal(whole[1], pieces[1])
    assert all(torch.equal(again.tensors()[name], tensor) for name, tensor in linear.tensors().items())


@pytest.mark.parametrize("kind", [INT8, FP8])
def test_rows_of_zeros_and_broken_rows(kind: torch.dtype) -> None:
    x = draw(4, IN)
    x[0] = 0
    x[1, 3], x[2, 7] = float("nan"), float("inf")
    codes, scale = quantise_rows(uneven(), kind)
    out = products8.multiply(x, codes, scale[:, 0], None)
    assert torch.equal(out[0], torch.zeros(OUT))
    assert not out[1].isfinite().any()
    assert not out[2].isfinite().any()
    assert out[3].isfinite().all()


def test_the_rowwise_kernel_gets_what_the_emulation_gets() -> None:
    """torch's rowwise product also runs on a processor: layouts, scales and bias are those of the emulation."""
    x, grad, bias = draw(N, IN), draw(N, OUT, seed=4), draw(OUT, seed=2)
    codes, scale = quantise_rows(draw(OUT, IN, seed=1), FP8)
    tokens, token_scale = quantise_rows(x, FP8)
    found = products8._rowwise(tokens, token_scale, codes.t(), scale[:, 0], bias)
    assert found.dtype == torch.bfloat16
    assert relative(found, products8.multiply(x, codes, scale[:, 0], bias)) < 0.01
    tokens, token_scale = quantise_rows(grad, FP8, fold=scale[:, 0])
    found = products8._rowwise(tokens, token_scale, codes, torch.ones(IN), None)
    assert relative(found, products8.multiply_back(grad, codes, scale[:, 0])) < 0.01


@pytest.mark.parametrize("precision", PACKED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wide_products_are_those_of_the_unpacked_weight(precision: str, dtype: torch.dtype) -> None:
    linear = make(precision, dtype=dtype)
    weight, bias = linear.dequantize(), linear.bias.float()  # type: ignore[attr-defined]
    x, grad = draw(N, IN, dtype=dtype), draw(N, OUT, seed=4, dtype=dtype)
    limit = 1e-6 if dtype == torch.float32 else 0.005
    out, back = linear.forward(x), linear.input_grad(grad)
    assert out.dtype == back.dtype == dtype
    assert relative(out, x.float() @ weight.T + bias) < limit
    assert relative(back, grad.float() @ weight) < limit


@pytest.mark.parametrize(("precision", "limit"), [("int8", 0.01), ("fp8", 0.03), ("nf4", 0.1)])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_packing_error(precision: str, limit: float, stored: torch.dtype) -> None:
    weight = draw(256, 512).to(stored)
    linear = pack(weight, None, precision, torch.bfloat16)  # type: ignore[arg-type]
    assert relative(linear.dequantize(), weight) < limit  # type: ignore[attr-defined]
    assert (linear.out_features, linear.in_features) == (256, 512)


def test_int8_rounds_to_the_nearest_code() -> None:
    linear = make("int8")
    assert isinstance(linear, Int8)
    assert (linear.dequantize() - uneven()).abs().le(linear.scale[:, None] * 0.5001).all()
    assert linear.weight.abs().amax(dim=1).eq(127).all()


@pytest.mark.parametrize("precision", ["auto", *PACKED])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_blank_linear_is_shaped_like_a_packed_one(precision: str, with_bias: bool) -> None:
    for shape in ((160, 96), (7, 9), (512, 192)):
        bias = draw(shape[0]) if with_bias else None
        found = pack(draw(*shape), bias, precision, torch.bfloat16).tensors()  # type: ignore[arg-type]
        wanted = blank(shape, with_bias, precision, torch.bfloat16).tensors()  # type: ignore[arg-type]
        assert list(found) == list(wanted)
        for name, tensor in wanted.items():
            assert (tensor.shape, tensor.dtype) == (found[name].shape, found[name].dtype), name


@pytest.mark.parametrize("precision", PACKED)
def test_other_memory_gives_the_same_products(precision: str) -> None:
    linear = make(precision)
    other = linear.with_tensors({name: tensor.clone() for name, tensor in linear.tensors().items()})
    x, grad = draw(N, IN), draw(N, OUT, seed=4)
    assert torch.equal(linear.forward(x), other.forward(x))
    assert torch.equal(linear.input_grad(grad), other.input_grad(grad))
    assert type(other) is type(linear)
    if isinstance(linear, Packed8):
        assert isinstance(other, Packed8)
        assert other.products is linear.products


def test_nf4_is_bitsandbytes_own() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = draw(512, 192)
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", blocksize=64, compress_statistics=True)
    linear = pack(weight, None, "nf4", torch.float32)
    assert isinstance(linear, Nf4)
    assert torch.equal(linear.dequantize(), functional.dequantize_4bit(packed, state))
    moved = sum(tensor.numel() * tensor.element_size() for tensor in linear.tensors().values())
    assert moved < 0.52 * weight.numel() + 1200


def test_without_bitsandbytes_nf4_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    with pytest.raises(ConfigError, match=r"(?s)nf4 needs bitsandbytes.*pip install.*int8"):
        require("nf4")
    require("int8")
    require("fp8")


ADA, HOPPER, AMPERE, TURING = (8, 9), (9, 0), (8, 6), (7, 5)


@pytest.mark.parametrize(
    ("precision", "compute", "capability", "kind", "said"),
    [
        ("auto", "auto", HOPPER, "wide", ""),
        ("nf4", "auto", HOPPER, "wide", ""),
        ("nf4", "8bit", HOPPER, "wide", "no effect on a base in nf4"),
        ("int8", "wide", HOPPER, "wide", ""),
        ("int8", "auto", None, "wide", ""),
        ("int8", "8bit", None, "int8", "emulated"),
        ("fp8", "8bit", None, "fp8", "emulated"),
        ("int8", "auto", (7, 0), "wide", "has no int8 products, which need 7.5"),
        ("int8", "auto", TURING, "int8", ""),
        ("int8", "auto", AMPERE, "int8", ""),
        ("int8", "auto", ADA, "int8", ""),
        ("int8", "auto", (12, 0), "int8", ""),
        ("int8", "auto", (10, 3), "wide", "fp8 is the fast choice"),
        ("int8", "8bit", (10, 3), "int8", ""),
        ("fp8", "auto", AMPERE, "wide", "int8 would be computed in 8 bit"),
        ("fp8", "8bit", (6, 1), "wide", "has no fp8 products, which need 8.9"),
        ("fp8", "auto", ADA, "fp8", ""),
        ("fp8", "auto", HOPPER, "fp8", ""),
        ("fp8", "auto", (12, 0), "fp8", ""),
    ],
)
def test_what_a_card_can_do(
    precision: str, compute: str, capability: tuple[int, int] | None, kind: str, said: str
) -> None:
    choice = choose(precision, compute, Card("Some card", capability))
    assert choice.kind == kind
    assert said in choice.reason
    assert bool(choice.reason) == bool(said)


@pytest.mark.parametrize(
    ("asked", "capability", "dtype", "said"),
    [
        ("auto", None, torch.float32, ""),
        ("bfloat16", None, torch.bfloat16, ""),
        ("auto", AMPERE, torch.bfloat16, ""),
        ("float32", AMPERE, torch.float32, ""),
        ("auto", TURING, torch.float32, "no bfloat16 units"),
        ("bfloat16", TURING, torch.bfloat16, "try model.dtype = float32"),
        ("float32", TURING, torch.float32, ""),
    ],
)
def test_a_card_without_bfloat16(
    asked: str, capability: tuple[int, int] | None, dtype: torch.dtype, said: str
) -> None:
    found, reason = base_dtype(asked, Card("Some card", capability))
    assert found == dtype
    assert said in reason
    assert bool(reason) == bool(said)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_products_are_tried_before_they_are_used(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Choice(kind)  # type: ignore[arg-type]
    assert products8.prove(chosen, "cpu") is chosen
    assert products8.prove(Choice("wide"), "cpu") == Choice("wide")

    def refused(*given: object) -> Tensor:
        raise RuntimeError("no kernel image\nand more")

    monkeypatch.setattr(products8, "_int8", refused)
    monkeypatch.setattr(products8, "_fp8", refused)
    assert products8.prove(chosen, "cpu") == Choice(
        "wide", f"{kind} products do not work here: RuntimeError: no kernel image"
    )
    monkeypatch.setattr(
        products8, f"_{kind}", lambda tokens, *rest: torch.zeros(40, 64 if rest[3] is not None else 96)
    )
    assert "off by 100.0%" in products8.prove(chosen, "cpu").reason


def test_a_kernel_that_fails_gives_way_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products8, "INT8_KERNELS", products8.Int8Kernels())
    monkeypatch.setattr(products8, "_problem", lambda *given: "it is off" if products8.INT8_KERNELS.product else "")
    assert products8.use_kernels(Choice("int8"), Card("Some card", TURING)).startswith("Some card is too old")
    assert products8.INT8_KERNELS.product is None
    assert products8.use_kernels(Choice("fp8"), Card("Some card", ADA)) == ""
    assert products8.use_kernels(Choice("int8"), Card("cpu")) == ""
    assert products8.INT8_KERNELS.product is None
    pytest.importorskip("triton")
    assert products8.use_kernels(Choice("int8"), Card("Some card", AMPERE)) == ""
    assert products8.INT8_KERNELS.product is not None
    proven = products8.prove(Choice("int8"), "cpu")
    assert proven == Choice("int8", "int8 kernels are off, torch's own products are used: it is off")
    assert products8.INT8_KERNELS.product is None
    monkeypatch.setitem(sys.modules, "engine.memory.kernels8", None)
    assert "triton cannot be loaded" in products8.use_kernels(Choice("int8"), Card("Some card", AMPERE))


@pytest.mark.parametrize(
    "err",
    [subprocess.CalledProcessError(1, ["cc"]), OSError(), "triton"],
    ids=["compiler", "empty", "triton"],
)
def test_whatever_a_kernel_raises_is_a_reason(err: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if err == "triton":
        pytest.importorskip("triton")
        from triton.errors import TritonError

        err = TritonError("out of resources")

    def refused(*given: object) -> Tensor:
        raise err

    monkeypatch.setattr(products8, "_int8", refused)
    found = products8.prove(Choice("int8"), "cpu")
    assert found.kind == "wide"
    assert type(err).__name__ in found.reason


def printed(script: str, **environment: str) -> Any:
    """What a script beside this file prints, run in a process of its own: Triton decides at import who runs it."""
    pytest.importorskip("triton")
    root = Path(__file__).resolve().parents[2]
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"} | environment
    path = Path(__file__).with_name(script)
    done = subprocess.run(
        [sys.executable, str(path)], env=env | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_int8_kernel_multiplies_integers_exactly() -> None:
    found = printed("product8_interpreted.py", TRITON_INTERPRET="1")
    assert len(found) == 12
    assert max(found.values()) < 3e-7


def test_the_int8_kernel_is_built_for_tensor_cores() -> None:
    for target, code in printed("product8_built.py").items():
        assert code["tensor core"], target
        assert not code["spills"], target
        assert code["shared"] < 99 * 1024, target  # what a program may have on a GeForce card


def test_odd_sizes_are_multiplied_wide() -> None:
    assert not products_for((24, 32), Choice("int8")).possible
    assert not products_for((32, 32), Choice("wide")).possible
    assert products_for((32, 32), Choice("int8")) == Products(True, True, True)
    assert products_for((32, 32), Choice("int8"), outliers=True) == Products(True, False, True)


def block_of(kind: str) -> SingleWeights:
    scale = torch.ones(16)
    linears = [
        pack(draw(OUT, IN, seed=n), None, kind, torch.float32, products_for((OUT, IN), Choice("int8"), n == 1))  # type: ignore[arg-type]
        for n in (0, 1)
    ]
    return SingleWeights(*linears, scale, scale)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_outliers_stay_wide_by_measured_error(kind: str) -> None:
    block = block_of(kind)
    linears = packed_linears([block])
    assert list(linears) == ["0.linear1", "0.linear2"]
    assert decisions(linears) == {"0.linear1": (True, True), "0.linear2": (False, True)}
    spiky = draw(N, IN) * 1e-6
    spiky[:, 0] = 30.0
    weight = linears["0.linear1"].weight
    weight[:, 0] = 0  # the outlier swamps the row's codes without counting itself
    grad = draw(N, OUT, seed=8)

    def first_batch() -> None:
        assert decisions(linears) == {"0.linear1": (False, False), "0.linear2": (False, False)}
        block.linear1.forward(spiky)
        copy = block.linear2.with_tensors(block.linear2.tensors())  # as a streamed one would be
        copy.forward(draw(N, IN, seed=7))
        copy.input_grad(grad)

    seen = calibrate(linears, first_batch)
    assert decisions(linears) == {"0.linear1": (False, True), "0.linear2": (True, True)}
    assert seen["0.linear1"].input_grad is None
    assert seen["0.linear1"].forward == measure(linears["0.linear1"], spiky)
    assert seen["0.linear2"].input_grad == measure_grad(linears["0.linear2"], grad)
    assert "3 of 4 products" in in_words(linears, seen)
    assert "0.linear1, relative error" in in_words(linears, seen)
    kept = decisions(linears)
    fresh = packed_linears([block_of(kind)])
    decide(fresh, {name: list(pair) for name, pair in kept.items()})
    assert decisions(fresh) == kept


def test_a_first_batch_that_fails_changes_nothing() -> None:
    linears = packed_linears([block_of("int8")])
    before = decisions(linears)

    def failing() -> None:
        raise ConfigError("no")

    with pytest.raises(ConfigError):
        calibrate(linears, failing)
    assert decisions(linears) == before
    assert all(linear.products.watch is None for linear in linears.values())


def test_broken_numbers_pass_no_limit() -> None:
    linears = packed_linears([block_of("int8")])
    calibrate(linears, lambda: linears["0.linear1"].forward(draw(N, IN) * float("nan")))
    assert not linears["0.linear1"].products.forward


def test_only_linears_that_could_are_watched() -> None:
    scale = torch.ones(16)
    stream = StreamWeights(make("fp8", Products(True)), make("nf4"), make("auto"), make("int8"), scale, scale)
    assert list(packed_linears([DoubleWeights(stream, stream)])) == ["0.img.qkv", "0.txt.qkv"]
    assert isinstance(stream.qkv, Fp8)
