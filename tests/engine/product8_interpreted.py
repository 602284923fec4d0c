"""Runs the int8 product under Triton's interpreter and prints its differences from integer arithmetic."""

from __future__ import annotations

import json

import torch

from engine.memory.kernels8 import product

SHAPES = ((40, 128, 64), (130, 70, 136), (1, 16, 16))


def differences() -> dict[str, float]:
    """The largest difference from float64 arithmetic, relative to the largest value, of every case."""
    draws = torch.Generator().manual_seed(0)
    found = {}
    for rows, depth, columns in SHAPES:
        tokens = torch.randint(-127, 128, (rows, depth), generator=draws, dtype=torch.int8)
        weight = torch.randint(-127, 128, (columns, depth), generator=draws, dtype=torch.int8)
        token_scale = torch.rand((rows, 1), generator=draws) + 0.1
        scale, bias = torch.rand(columns, generator=draws) + 0.1, torch.randn(columns, generator=draws)
        for way, codes in (("by rows", weight.t()), ("by columns", weight.t().contiguous())):
            for with_scale in (True, False):
                got = product(
                    tokens, token_scale, codes, scale if with_scale else None, bias if with_scale else None,
                    torch.float32,
                )  # fmt: skip
                wanted = (tokens.double() @ weight.double().T) * token_scale
                if with_scale:
                    wanted = wanted * scale + bias
                case = f"{rows}x{depth}x{columns} {way} {'scaled' if with_scale else 'bare'}"
                found[case] = float((got - wanted).abs().max() / wanted.abs().max())
    return found


if __name__ == "__main__":
    print(json.dumps(differences()))
