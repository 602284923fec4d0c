"""Attention with an explicit backward: torch's own gives the same, the plain fallback too, and the choice is said."""

from __future__ import annotations

import pytest
import torch
from flux_steps import error
from torch import Tensor
from torch.nn import functional as F

from engine.blocks import attention
from engine.blocks.attention import CPU, PLAIN, Attention, bias_of, choose, first_sound


def heads(batch: int = 2, length: int = 37) -> list[Tensor]:
    """Queries, keys, values and a gradient (B, H, L, K), in memory as (B, L, H, K)."""
    torch.manual_seed(1)
    return [torch.randn(batch, length, 3, 16).transpose(1, 2) for _ in range(4)]


def mask(batch: int = 2, length: int = 37) -> Tensor:
    keys = torch.arange(length)[None] < torch.tensor([length - 9 * n for n in range(batch)])[:, None]
    return keys[:, None, None]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kernel", [CPU, PLAIN], ids=lambda kernel: kernel.name)
def test_a_kernel_equals_autograd(kernel: Attention, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "ROWS", 16)  # the fallback goes through several pieces
    q, k, v, grad = heads()
    keys = mask() if masked else None
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    wanted = F.scaled_dot_product_attention(*leaves, attn_mask=keys)
    wanted.backward(grad)

    bias = bias_of(keys, q.dtype, kernel)
    out, extra = kernel.forward(q, k, v, bias)
    grads = kernel.backward(grad, q, k, v, bias, out, extra)
    assert error(out, wanted.detach()) < 1e-6
    for found, leaf in zip(grads, leaves, strict=True):
        assert error(found, leaf.grad) < 2e-6
    assert out.transpose(1, 2).is_contiguous(), "heads join without a copy"


def test_a_slice_of_a_wider_buffer_is_taken_as_it_is() -> None:
    q, k, v, grad = heads()
    wide = torch.zeros(2, 37, 100)
    wide[..., :48].unflatten(-1, (3, 16)).copy_(v.transpose(1, 2))
    inside = wide[..., :48].unflatten(-1, (3, 16)).transpose(1, 2)
    out, extra = CPU.forward(q, k, v, None)
    again, _ = CPU.forward(q, k, inside, None)
    assert torch.equal(out, again)
    wide[..., 48:96].unflatten(-1, (3, 16)).copy_(out.transpose(1, 2))
    kept = wide[..., 48:96].unflatten(-1, (3, 16)).transpose(1, 2)
    wanted = CPU.backward(grad, q, k, v, None, out, extra)
    found = CPU.backward(grad, q, k, inside, None, kept, extra)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_a_bias_has_room_for_the_kernel_that_reads_it() -> None:
    kernel = Attention("wide", CPU.forward, CPU.backward, aligned=16)
    bias = bias_of(mask(), torch.float32, kernel)
    assert bias is not None and bias.shape == (2, 1, 1, 37)
    assert bias.stride(0) == 48
    assert torch.equal(bias == 0, mask())


def test_the_cpu_gets_its_fused_kernel() -> None:
    choice = choose(torch.device("cpu"), torch.float32, 16, True)
    assert choice.attention is CPU
    assert not choice.reason


def test_an_unknown_device_gets_the_plain_one() -> None:
    choice = choose(torch.device("meta"), torch.float32, 16, False)
    assert choice.attention is PLAIN and "meta" in choice.reason


def _fail(*_: object) -> None:
    raise RuntimeError("no such kernel\non this card")


def _unmasked(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
    return CPU.forward(q, k, v, None)


@pytest.mark.parametrize(
    ("kernel", "masked", "reason"),
    [
        (Attention("broken", _fail, _fail), False, "broken: no such kernel"),  # type: ignore[arg-type]
        (Attention("deaf", _unmasked, CPU.backward), True, "deaf: differs from the plain one by"),
    ],
    ids=["fails", "forgets the mask"],
)
def test_an_unsound_kernel_is_passed_over_and_named(kernel: Attention, masked: bool, reason: str) -> None:
    choice = first_sound([kernel, CPU], torch.device("cpu"), torch.bfloat16, 16, masked)
    assert choice.attention is CPU
    assert choice.reason.startswith(reason)


def test_without_a_sound_kernel_there_is_the_plain_one() -> None:
    broken = Attention("broken", _fail, _fail)  # type: ignore[arg-type]
    assert first_sound([broken], torch.device("cpu"), torch.float32, 16, False).attention is PLAIN


@pytest.mark.parametrize("capability", [(8, 6), (9, 0)])
def test_deterministic_runs_do_without_cudnn(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def sound(kernel: Attention, *_: object) -> str:
        tried.append(kernel.name)
        return "" if kernel is attention.EFFICIENT else "not here"

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(attention, "_problem", sound)
    attention._chosen.cache_clear()
    try:
        gpu = torch.device("cuda", 0)
        plain = choose(gpu, torch.bfloat16, 128, False)
        with_cudnn = "cuDNN" in tried
        tried.clear()
        torch.use_deterministic_algorithms(True)
        choice = choose(gpu, torch.bfloat16, 128, False)
    finally:
        torch.use_deterministic_algorithms(False)
        attention._chosen.cache_clear()
    assert plain.attention is choice.attention is attention.EFFICIENT
    assert with_cudnn is (capability >= (9, 0))
    assert tried == ["flash", "memory-efficient"]
    assert ("not deterministic" in choice.reason) is (capability >= (9, 0))
