"""A tagger's ONNX graph by hand: the mean of each colour, weighted to a score for each tag."""

from __future__ import annotations

import struct
from collections.abc import Sequence


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _node(kind: str, inputs: Sequence[str], output: str) -> bytes:
    return (
        b"".join(_bytes(1, name.encode()) for name in inputs) + _bytes(2, output.encode()) + _bytes(4, kind.encode())
    )


def _tensor(name: str, shape: Sequence[int], values: Sequence[float], kind: int = 1) -> bytes:
    data = struct.pack(f"<{len(values)}{'f' if kind == 1 else 'q'}", *values)
    sizes = b"".join(_number(1, size) for size in shape)
    return sizes + _number(2, kind) + _bytes(8, name.encode()) + _bytes(9, data)


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    parts = [_bytes(1, _number(1, size) if isinstance(size, int) else _bytes(2, size.encode())) for size in shape]
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, 1) + _bytes(2, b"".join(parts))))


def tagger_graph(weights: Sequence[Sequence[float]], side: int = 16) -> bytes:
    """Scores are sigmoid(mean blue, green, red / 255 times ``weights``), one row of three a tag."""
    tags = len(weights)
    columns = [row[colour] / 255 for colour in range(3) for row in weights]
    graph = b"".join((
        _bytes(1, _node("ReduceMean", ["pictures", "axes"], "kept")),
        _bytes(1, _node("Reshape", ["kept", "shape"], "means")),
        _bytes(1, _node("MatMul", ["means", "weights"], "raw")),
        _bytes(1, _node("Sigmoid", ["raw"], "scores")),
        _bytes(2, b"tagger"),
        _bytes(5, _tensor("axes", [2], [1, 2], 7)),
        _bytes(5, _tensor("shape", [2], [-1, 3], 7)),
        _bytes(5, _tensor("weights", [3, tags], columns)),
        _bytes(11, _value("pictures", ["N", side, side, 3])),
        _bytes(12, _value("scores", ["N", tags])),
    ))  # fmt: skip
    return _number(1, 8) + _bytes(8, _bytes(1, b"") + _number(2, 18)) + _bytes(7, graph)
