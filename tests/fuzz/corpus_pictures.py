"""Pictures as strangers send them: odd, broken, hostile. Each file in a line or two, with what must become of it.

What :mod:`tests.engine.pictures` has already is taken from there; nothing of this is stored.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.engine.pictures import ACCEPTED, OSC_52, REFUSED, J, P, chunk, encoded, gradient, png, tiff, turned

Expectation = str
"""``accept``, ``warn:CODE`` (accepted with this warning) or ``refuse:WORDS`` (the reason holds these words)."""


@dataclass(frozen=True)
class HostilePicture:
    """A file by code, and what the decoder must make of it."""

    data: Callable[[], bytes]
    expectation: Expectation


REASONS = {
    "zero.png": "no bytes", "one.jpg": "starts with ff", "half.jpg": "truncated", "half.png": "truncated",
    "half.bmp": "truncated", "headless.png": "starts like a PNG", "html.jpg": "a web page", "lab.tif": "mode LAB",
    "float.tif": "mode F", "int32.tif": "mode I", "bomb.png": "3600 megapixels", "bomb1.png": "169 megapixels",
    "eps.png": "PostScript", "fits.jpg": "FITS", "psd.png": "Photoshop", "svg.png": "SVG", "pdf.jpg": "PDF",
    "heic.jpg": "HEIC", "jxl.png": "JPEG XL", "video.webp": "video", "gif.png": "a GIF",
}  # fmt: skip
"""Words that the reasons of the refused ones hold."""


def _frames(kind: str, count: int = 3, **options: object) -> bytes:
    more = [Image.new("RGB", (64, 48), (shade, 0, 0)) for shade in range(count - 1)]
    return encoded(gradient(), kind, save_all=True, append_images=more, **options)


def _fading() -> Image.Image:
    """Opaque on the left, clear on the right."""
    picture = gradient().convert("RGBA")
    picture.putalpha(Image.fromarray(np.tile(np.linspace(255, 0, 64).astype(np.uint8), (48, 1))))
    return picture


def _jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose header claims another size."""
    at = J.index(b"\xff\xc0") + 5
    return J[:at] + struct.pack(">HH", height, width) + J[at + 4 :]


def _bmp_of(width: int, height: int) -> bytes:
    data = encoded(gradient(), "BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


def _webp_canvas(side: int) -> bytes:
    """A WebP that is nothing but a header of an extended canvas."""
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + 2 * (side - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _endless_tiff() -> bytes:
    """A TIFF whose second page is its first."""
    data = bytearray(tiff(np.full((8, 8, 1), 99, np.uint8), 1))
    (entries,) = struct.unpack_from("<H", data, 8)
    struct.pack_into("<I", data, 10 + 12 * entries, 8)
    return bytes(data)


def _many_entries_tiff() -> bytes:
    """65,535 entries of which each asks for four gigabytes."""
    return b"II*\0" + struct.pack("<IH", 8, 0xFFFF) + struct.pack("<HHII", 270, 2, 0xFFFFFFF0, 64) * 0xFFFF


def _icc_bomb() -> bytes:
    return png(8, 8, 8, 0, b"\0" * 72, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(20_000_000))))


def _row_bomb() -> bytes:
    """A small header before forty megabytes of rows."""
    return png(8, 8, 8, 0, bytes(40_000_000))


def _many_chunks() -> bytes:
    return png(8, 8, 8, 0, b"\0" * 72, chunk(b"tEXt", b"k\0v") * 50_000)


def _short_rows() -> bytes:
    return png(64, 64, 8, 2, b"\0" * 99)


def _deep_exif() -> bytes:
    """An EXIF whose sub-folder is itself."""
    ifd = struct.pack(">HHHII", 1, 0x8769, 4, 1, 8) + bytes(4)
    return encoded(gradient(), "JPEG", exif=b"Exif\0\0MM\0*" + struct.pack(">I", 8) + ifd)


def _long_comment() -> bytes:
    return J[:2] + (b"\xff\xfe\xff\xff" + OSC_52.encode() * 5 + bytes(65533 - 5 * len(OSC_52))) * 40 + J[2:]


def _with_tail() -> bytes:
    """A picture with a web page behind it."""
    return P + b"<script>" * 10_000


def _grey_ramp(kind: str) -> bytes:
    return encoded(Image.fromarray(np.linspace(0, 65535, 3072).astype(np.uint16).reshape(48, 64)), kind)


def _saved(picture: Image.Image, kind: str, **options: object) -> Callable[[], bytes]:
    def make() -> bytes:
        file = io.BytesIO()
        picture.save(file, kind, **options)
        return file.getvalue()

    return make


_MORE: dict[str, tuple[Callable[[], bytes], Expectation]] = {
    "anim.webp": (lambda: _frames("WEBP"), "warn:animated"),
    "apng.png": (lambda: _frames("PNG"), "warn:animated"),
    "pages.tif": (lambda: _frames("TIFF"), "warn:animated"),
    "anim.gif": (lambda: _frames("GIF"), "refuse:a GIF"),
    "phone.jpg": (lambda: _frames("MPO"), "accept"),
    "fading.png": (_saved(_fading(), "PNG"), "warn:transparent"),
    "fading.webp": (_saved(_fading(), "WEBP"), "warn:transparent"),
    "fading.tif": (_saved(_fading(), "TIFF"), "warn:transparent"),
    "alpha0.png": (_saved(Image.new("RGBA", (64, 48), (255, 0, 0, 0)), "PNG"), "warn:transparent"),
    "pal_t.png": (_saved(gradient().quantize(4), "PNG", transparency=1), "warn:transparent"),
    "pal_tb.png": (_saved(gradient().quantize(16), "PNG", transparency=bytes(range(0, 256, 16))), "warn:transparent"),
    "grey_t.png": (_saved(Image.new("L", (64, 48), 7), "PNG", transparency=7), "warn:transparent"),
    "soft.png": (_saved(Image.new("RGBA", (64, 48), (9, 9, 9, 254)), "PNG"), "accept"),
    "ramp16.png": (lambda: _grey_ramp("PNG"), "accept"),
    "ramp16.tif": (lambda: _grey_ramp("TIFF"), "accept"),
    "progressive.jpg": (_saved(gradient(), "JPEG", progressive=True), "accept"),
    "comment.jpg": (_long_comment, "accept"),
    "tail.png": (_with_tail, "accept"),
    "chunks.png": (_many_chunks, "accept"),
    "iccbomb.png": (_icc_bomb, "refuse:too large"),
    "rowbomb.png": (_row_bomb, "accept"),
    "short.png": (_short_rows, "refuse:truncated"),
    "deep_exif.jpg": (_deep_exif, "accept"),
    "endless.tif": (_endless_tiff, "accept"),
    "entries.tif": (_many_entries_tiff, "refuse:"),
    "huge.jpg": (lambda: _jpeg_of(65500, 65500), "refuse:megapixels; the limit is 64"),
    "flat.jpg": (lambda: _jpeg_of(64, 0), "refuse:"),
    "other_size.jpg": (lambda: _jpeg_of(640, 480), "accept"),
    "huge.bmp": (lambda: _bmp_of(2_000_000_000, 2_000_000_000), "refuse:megapixels"),
    "negative.bmp": (lambda: _bmp_of(-64, -48), "refuse:"),
    "upside_down.bmp": (lambda: _bmp_of(64, -48), "accept"),
    "canvas.webp": (lambda: _webp_canvas(16384), "refuse:"),
    "half.avif": (lambda: b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B" + bytes(64), "refuse:"),
    "pickle.png": (lambda: b"\x80\x04cposix\nsystem\n(S'id'\ntR.", "refuse:starts with"),
    "zip.png": (lambda: b"PK\x03\x04" + bytes(60), "refuse:a zip"),
    "noise.png": (lambda: bytes(range(256)) * 40, "refuse:starts with"),
    "icon.png": (lambda: b"\0\0\1\0\1\0" + bytes(64), "refuse:an icon"),
    "jp2.jpg": (lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64), "refuse:JPEG 2000"),
    "xml.png": (lambda: b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "&a;&a;">]><svg/>', "refuse:an XML"),
    "spaces.jpg": (lambda: b" \n\t" * 20 + b"<html>", "refuse:"),
    "exif6.png": (_saved(gradient(), "PNG", exif=turned(6)), "accept"),
    "exif6.webp": (_saved(gradient(), "WEBP", exif=turned(6)), "accept"),
    "exif6.tif": (_saved(gradient(), "TIFF", exif=turned(6)), "accept"),
} | {f"exif{turn}.jpg": (_saved(gradient(), "JPEG", exif=turned(turn)), "accept") for turn in range(10)}

PICTURES: dict[str, HostilePicture] = (
    {name: HostilePicture(data, f"refuse:{REASONS.get(name, '')}") for name, data in REFUSED.items()}
    | {name: HostilePicture(data, "accept") for name, data in ACCEPTED.items()}
    | {name: HostilePicture(*case) for name, case in _MORE.items()}
)


def write_pictures(folder: Path, names: tuple[str, ...] = ()) -> dict[Path, Expectation]:
    """Write the corpus (or some of it) with a caption each; what must become of every path."""
    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    for name in names or tuple(PICTURES):
        # Stems of their own: two pictures of one stem are another matter.
        path = folder / f"{Path(name).stem}-{Path(name).suffix[1:]}{Path(name).suffix}"
        path.write_bytes(PICTURES[name].data())
        path.with_suffix(".txt").write_text("a picture")
        expected[path] = PICTURES[name].expectation
    return expected
