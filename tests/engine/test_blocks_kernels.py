"""Fused kernels: their numbers under Triton's interpreter, declared traffic, and where they are taken."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from kernels_process import printed
from torch._subclasses import FakeTensorMode

from engine.blocks import kernels_choice
from engine.blocks.kernels_choice import choose_pieces, disagreement
from engine.blocks.kernels_traffic import Moved, Tally, moved
from engine.blocks.pieces import EAGER
from engine.memory.products8 import Choice
from engine.training import lean

pytest.importorskip("triton")


@pytest.fixture(scope="module")
def interpreted() -> Any:
    return printed("kernels_interpreted.py")


# The interpreter cuts a float32 off where bfloat16 ends; a GPU rounds to nearest. Hence twice a rounding there.
LIMITS = {"float32": 1e-6, "bfloat16": 8e-3, "float16": 1e-3}


def test_every_piece_gives_what_torch_gives(interpreted: Any) -> None:
    off = {
        f"{case}: {piece}": error
        for case, errors in interpreted["pieces"].items()
        for piece, error in errors.items()
        if not error <= (1e-6 if piece in ("mean", "rstd") else LIMITS[case.split()[-1]])
    }
    assert not off
    assert len(interpreted["pieces"]) == 9


def test_a_whole_step_through_the_kernels_equals_the_plain_one(interpreted: Any) -> None:
    assert interpreted["step"]["velocity"] < 2e-6
    assert interpreted["step"]["gradients"] < 1e-5


def test_rows_are_packed_to_int8_where_they_are_made(interpreted: Any) -> None:
    found = interpreted["int8"]
    assert found["step"] <= 1e-6
    assert found["other integers"] == 0
    assert found["zero rows"] == pytest.approx([0.0, 1e-30])
    assert found["broken rows"] == 0  # nothing that is not a number hides in int8
    assert found["halves"] == [127, 0, 2, 2, 0, -2]  # halves to even, as torch.round


def test_graphs_and_fake_tensors_see_operators(interpreted: Any) -> None:
    found = interpreted["traced"]
    assert found["fake"] == [2, 4608, 6144]
    assert found["graphs"] == 1  # three token counts, one graph
    assert found["operators"] == ["gate_residual", "gelu", "norm_modulate"]
    assert found["error"] == 0.0


def test_the_proof_passes_for_right_kernels(interpreted: Any) -> None:
    assert interpreted["proof"] == ["", ""]


def test_the_proof_names_a_piece_that_is_wrong() -> None:
    from dataclasses import replace

    wrong = replace(EAGER, gate_backward=lambda dout, gate: dout * gate[:, None] * 1.001)
    assert disagreement(EAGER, torch.device("cpu"), torch.float32) == ""
    assert "gate_backward differs" in disagreement(wrong, torch.device("cpu"), torch.float32)
    broken = replace(EAGER, gelu=lambda m, out: out.fill_(float("nan")))
    assert "gelu differs" in disagreement(broken, torch.device("cpu"), torch.float32)


def test_an_eager_device_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = choose_pieces(torch.device("cpu"))
    assert chosen.pieces is EAGER
    assert chosen.name == "eager"
    assert "CUDA" in chosen.reason
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert "compute capability 7.0" in choose_pieces(gpu).reason
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    assert "float64" in choose_pieces(gpu, torch.float64).reason


def test_a_gpu_on_which_the_kernels_fail_gets_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))

    def fail(*_: Any) -> str:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(kernels_choice, "disagreement", fail)
    chosen = choose_pieces(torch.device("cuda", 0))
    assert chosen.pieces is EAGER
    assert "do not run here (RuntimeError: Failed to find C compiler)" in chosen.reason


def test_an_error_without_words_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))

    def fail(*_: Any) -> str:
        raise OSError

    monkeypatch.setattr(kernels_choice, "disagreement", fail)
    assert "do not run here (OSError)" in choose_pieces(torch.device("cuda", 0)).reason


def test_the_quantising_kernel_is_for_gpus_with_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, int8 = torch.device("cuda", 0), Choice("int8")
    assert lean._quantiser(int8, torch.device("cpu")) is None
    assert lean._quantiser(Choice("fp8"), gpu) is None
    assert lean._quantiser(int8, gpu) is not None
    monkeypatch.setitem(sys.modules, "engine.blocks.kernels_launch", None)
    assert lean._quantiser(int8, gpu) is None


def test_a_machine_without_triton_gets_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    monkeypatch.setitem(sys.modules, "engine.blocks.kernels_launch", None)
    chosen = choose_pieces(torch.device("cuda", 0))
    assert chosen.pieces is EAGER
    assert "triton cannot be loaded" in chosen.reason


X = 4608 * 3072 * 2
"""Hidden states of one sample at 1024 px in bfloat16, bytes."""


def near(found: Moved, rows: float) -> bool:
    """As many passes over the hidden states, up to vectors, statistics and the rotary table."""
    return abs(found.bytes / X - rows) < 0.1


def test_declared_traffic_is_that_of_one_pass_each() -> None:
    with FakeTensorMode():
        hidden = torch.empty(1, 4608, 3072, dtype=torch.bfloat16)
        wide, vector = torch.empty(1, 4608, 7 * 3072, dtype=torch.bfloat16), hidden[:, 0]
        rows, scale = torch.empty(1, 4608), torch.empty(128, dtype=torch.bfloat16)
        heads, table = hidden.view(1, 4608, 24, 128), torch.empty(2, 1, 4608, 64)
        qkv, m = wide[..., : 3 * 3072], wide[..., 3 * 3072 :]
        assert near(moved("norm_modulate", (hidden, vector, vector), (hidden, rows, rows)), 2)
        back = (hidden, hidden, vector, rows, rows, hidden, hidden)
        assert near(moved("norm_modulate_backward", back), 4)
        assert near(moved("rotate_heads", (qkv, scale, scale, table, heads, heads, None)), 4 + 1 / 12)
        assert near(moved("rotate_heads", (qkv, scale, scale, table, heads, heads, heads)), 6 + 1 / 12)
        assert near(moved("rotate_heads_backward", (heads, heads, heads, qkv, scale, scale, table, qkv)), 8 + 1 / 12)
        assert near(moved("gelu", (m, m)), 8)
        assert near(moved("gelu_backward", (m, m, m)), 12)
        assert near(moved("gelu_both", (m, m, m, m)), 16)
        assert near(moved("gate_residual", (hidden, vector, hidden, hidden)), 3)
        assert near(moved("gate_backward", (hidden, vector), (hidden,)), 2)


def test_a_tally_counts_what_a_table_is_asked_for() -> None:
    tally = Tally()
    pieces = tally.over(EAGER)
    x, gate = torch.randn(1, 4, 8), torch.randn(1, 8)
    assert torch.equal(pieces.gate_backward(x, gate), EAGER.gate_backward(x, gate))
    pieces.gate_backward(x, gate)
    assert tally.by_piece == {"gate_backward": Moved(read=2 * 4 * (32 + 8), written=2 * 4 * 32, launches=2)}
    assert tally.total.bytes == 2 * 4 * (64 + 8)
