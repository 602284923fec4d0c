"""Mutations of bytes and texts, drawn from a seed: what the gate runs, and what stands in where atheris is absent."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

MOST_BYTES = 16_384
"""Mutants are cut here: a parser's mistakes show in small inputs."""

WORDS = (
    b"NaN", b"Infinity", b"-1", b"0", b"1e999", b"9" * 400, b"18446744073709551616", b"true", b"null", b"[]", b"{}",
    b'"', b"\\", b"\\u001b", b"\\ud800", b"\x1b]52;c;QQ==\x07", b"\x9b2J", b"\0", b"\xff", b"\xef\xbb\xbf",
    b"\xff\xfe", b"../../x", b"~root", b"$(id)", b"__class__", b"[" * 2000, b'{"a":' * 1200, b"[/x]",
    b"\xe2\x80\xae", b"\xe2\x80\xa8", b"\n", b"\r\n", b"=", b",", b".", b"'" * 3, b'"' * 3, b"[[", b"]]", b"#",
)  # fmt: skip
"""Pieces that parsers trip over."""


def mutants(seeds: Sequence[bytes], seed: int, count: int) -> Iterator[bytes]:
    """``count`` mutants of ``seeds``; the same for the same ``seed``."""
    draw = random.Random(seed)
    for _ in range(count):
        yield mutant(draw, seeds)


def mutant(draw: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One seed after one to six changes."""
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.randint(1, 6)):
        _change(draw, data, seeds)
    return bytes(data[:MOST_BYTES])


def _change(draw: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    at = draw.randint(0, len(data))
    end = min(len(data), at + draw.choice((1, 1, 2, 4, 16, 64)))
    match draw.randint(0, 7):
        case 0 if data:
            data[at % len(data)] ^= 1 << draw.randint(0, 7)
        case 1 if data:
            data[at % len(data)] = draw.randint(0, 255)
        case 2:
            data[at:at] = draw.choice(WORDS)
        case 3:
            data[at:end] = draw.choice(WORDS)
        case 4:
            del data[at:end]
        case 5:
            data[at:at] = data[at:end] * draw.choice((1, 1, 2, 8))
        case 6:
            other = draw.choice(seeds)
            begin = draw.randint(0, len(other))
            data[at:end] = other[begin : begin + draw.choice((4, 16, 64, 256))]
        case _:
            _nudge_number(draw, data, at)


def _nudge_number(draw: random.Random, data: bytearray, at: int) -> None:
    """Replace the run of digits nearest after ``at``."""
    begin = next((n for n in range(at, len(data)) if chr(data[n]).isdigit()), None)
    if begin is not None:
        end = begin
        while end < len(data) and chr(data[end]).isdigit():
            end += 1
        data[begin:end] = draw.choice((b"0", b"-1", b"1.5", b"2147483648", b"9223372036854775808", b"9" * 4400))
