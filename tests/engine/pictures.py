"""Pictures for tests, made on the spot: ordinary ones and hostile ones, each in a line or two."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

OSC_52 = "\x1b]52;c;QQ==\x1b\\"
"""Asks a terminal to write to the clipboard."""


def gradient(width: int = 64, height: int = 48) -> Image.Image:
    """A picture without symmetry: red grows to the right, green downwards, blue is a constant 40."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, np.full_like(across, 40)], -1).astype(np.uint8))


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """A picture's file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG by hand: header, extra chunks, compressed rows, end."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(samples: np.ndarray, photometric: int, kind: int = 1) -> bytes:
    """An uncompressed TIFF by hand: samples (h, w, channels) of any type; ``kind`` 1 unsigned, 2 signed, 3 float."""
    order = ">" if samples.dtype.byteorder == ">" else "<"
    height, width, channels = samples.shape
    data, bits, count = samples.tobytes(), 8 * samples.itemsize, 11
    tail = 8 + 2 + count * 12 + 4
    lists = struct.pack(f"{order}{2 * channels}H", *[bits] * channels, *[kind] * channels)
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, tail if channels > 2 else bits), (259, 3, 1, 1),
        (262, 3, 1, photometric), (273, 4, 1, tail + len(lists)), (277, 3, 1, channels), (278, 4, 1, height),
        (279, 4, 1, len(data)), (284, 3, 1, 1), (339, 3, channels, tail + 2 * channels if channels > 2 else kind),
    ]  # fmt: skip
    entries = b"".join(
        struct.pack(f"{order}HHI" + ("H2x" if size == 3 and many == 1 else "I"), tag, size, many, value)
        for tag, size, many, value in tags
    )
    magic = b"MM\0*" if order == ">" else b"II*\0"
    return magic + struct.pack(f"{order}IH", 8, count) + entries + bytes(4) + lists + data


def turned(orientation: int) -> Image.Exif:
    """EXIF that asks for a turn."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def picture_file(folder: Path, name: str = "a.png", caption: str | None = "a picture", **size: int) -> Path:
    """Write an ordinary picture with its caption and return the picture's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    kind = {".jpg": "JPEG", ".webp": "WEBP"}.get(path.suffix, "PNG")
    path.write_bytes(encoded(gradient(**size), kind))
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def _flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


J = encoded(gradient(), "JPEG")
P = encoded(gradient(), "PNG")
_BIG_J = encoded(gradient(640, 480), "JPEG", quality=95)
_GREY_16 = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
_ROWS_16 = b"".join(b"\0" + struct.pack(">3H", 65535, 32896, 0) * 8 for _ in range(8))
_BOMB_TEXT = zlib.compress(bytes(20_000_000), 9)

REFUSED: dict[str, Callable[[], bytes]] = {
    "zero.png": lambda: b"",
    "one.jpg": lambda: b"\xff",
    "soi.jpg": lambda: J[:2],
    "half.jpg": lambda: _BIG_J[: len(_BIG_J) // 2],
    "tail.jpg": lambda: _BIG_J[:-10],
    "half.webp": lambda: encoded(gradient(), "WEBP")[:100],
    "half.bmp": lambda: encoded(gradient(), "BMP")[:5000],
    "half.tif": lambda: encoded(gradient(), "TIFF")[:5000],
    "half.png": lambda: P[: len(P) // 2],
    "headless.png": lambda: P[:12] + P[40:],
    "html.jpg": lambda: b"<html><body>404</body></html>",
    "lab.tif": lambda: encoded(Image.new("LAB", (16, 16), (128, 128, 128)), "TIFF"),
    "float.tif": lambda: encoded(Image.new("F", (16, 16), 0.5), "TIFF"),
    "int32.tif": lambda: encoded(Image.new("I", (16, 16), 70000), "TIFF"),
    "bomb.png": lambda: png(60000, 60000, 1, 0, b""),
    "bomb1.png": lambda: png(13000, 13000, 1, 0, b"\0" * 1626 * 13000),
    "ztxt.png": lambda: png(8, 8, 8, 0, b"\0" * 72, chunk(b"zTXt", b"Comment\0\0" + _BOMB_TEXT)),
    "eps.png": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (r) file\n",
    "fits.jpg": lambda: b"SIMPLE  =                    T" + b" " * 2000,
    "psd.png": lambda: b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 30000, 30000, 8, 3),
    "qoi.png": lambda: b"qoif" + struct.pack(">IIBB", 20000, 20000, 3, 0),
    "dds.png": lambda: b"DDS |\0\0\0" + bytes(120),
    "svg.png": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "pdf.jpg": lambda: b"%PDF-1.4\n",
    "heic.jpg": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "jxl.png": lambda: b"\xff\x0a" + bytes(30),
    "video.webp": lambda: b"\0\0\0\x18ftypmp42\0\0\0\0",
    "gif.png": lambda: encoded(gradient(), "GIF"),
    "nothing.png": lambda: png(0, 10, 8, 0, b"\0" * 10),
}
"""Files of picture names that must be refused when decoded, each with its own reason."""

ACCEPTED: dict[str, Callable[[], bytes]] = {
    "noiend.png": lambda: P[:-12],
    "crc.png": lambda: P[:-4] + bytes(4),
    "flip.jpg": lambda: _flipped(J, 700),
    "png.jpg": lambda: P,
    "cmyk.jpg": lambda: encoded(gradient().convert("CMYK"), "JPEG"),
    "cmyk.tif": lambda: encoded(gradient().convert("CMYK"), "TIFF"),
    "grey.png": lambda: encoded(gradient().convert("L"), "PNG"),
    "bit.png": lambda: encoded(gradient().convert("1"), "PNG"),
    "la.png": lambda: encoded(gradient().convert("LA"), "PNG"),
    "palette.png": lambda: encoded(gradient().quantize(16), "PNG"),
    "key.png": lambda: encoded(gradient(), "PNG", transparency=(1, 2, 3)),
    "grey16.png": lambda: encoded(Image.fromarray(_GREY_16), "PNG"),
    "grey16.tif": lambda: encoded(Image.fromarray(_GREY_16), "TIFF"),
    "rgb16.png": lambda: png(8, 8, 16, 2, _ROWS_16),
    "exif_garbage.jpg": lambda: encoded(gradient(), "JPEG", exif=b"Exif\0\0" + b"\xff" * 50),
    "exif_huge.jpg": lambda: encoded(gradient(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\1" * 60000),
    "text.png": lambda: png(8, 8, 8, 0, b"\0" * 72, chunk(b"tEXt", b"Title\0" + OSC_52.encode())),
    "picture.bmp": lambda: encoded(gradient(), "BMP"),
    "lossless.webp": lambda: encoded(gradient(), "WEBP", lossless=True),
    "lossy.webp": lambda: encoded(gradient(), "WEBP"),
    "dot.png": lambda: encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
    "tall.png": lambda: encoded(Image.new("L", (1, 60000), 200), "PNG"),
    "wide.png": lambda: encoded(Image.new("L", (60000, 1), 200), "PNG"),
}
"""Odd files that decode to what a person sees."""
