"""What a file's first bytes tell: what it is where Pillow knows no picture in it, and the size of a plain WebP.

A part of :mod:`engine.dataset.decoder_child`: it imports as little.
"""

from __future__ import annotations

from PIL import Image

from engine.errors import DatasetError
from engine.text import safe_text

_MAGIC = (
    (b"GIF8", "a GIF"), (b"8BPS", "a Photoshop file"), (b"%!PS", "a PostScript file"), (b"%PDF", "a PDF"),
    (b"\xff\x0a", "a JPEG XL picture"), (b"\0\0\0\x0cJXL ", "a JPEG XL picture"), (b"SIMPLE  =", "a FITS file"),
    (b"qoif", "a QOI picture"), (b"DDS ", "a DDS texture"), (b"PK\x03\x04", "a zip archive"),
    (b"<svg", "an SVG drawing"), (b"<?xml", "an XML or SVG file"), (b"<", "a web page"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"), (b"\0\0\x01\0", "an icon"),
)  # fmt: skip
_OWN_MAGIC = (
    (b"\x89PNG", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"RIFF", "WebP"),
)  # fmt: skip
_BRANDS = {
    b"heic": "a HEIC picture",
    b"heix": "a HEIC picture",
    b"mif1": "a HEIF picture",
    b"avif": "an AVIF picture",
}
MEND = "Open and save it again with a picture editor, replace it, or remove it."
"""What to do about a picture that is broken."""


def unknown(path: str, head: bytes) -> DatasetError:
    """Why Pillow knows no picture in a file that starts with ``head``."""
    shown = safe_text(path)
    own = next((name for magic, name in _OWN_MAGIC if head.startswith(magic)), None)
    if own or (head[4:12] == b"ftypavif" and "AVIF" in Image.OPEN):
        detail = f"{shown} starts like a {own or 'AVIF'} file, but its header is damaged or of a rare kind"
        return DatasetError("A picture is broken", detail, MEND)
    start = head.lstrip()
    found = next((name for magic, name in _MAGIC if start.startswith(magic)), None)
    if head[4:8] == b"ftyp":
        found = _BRANDS.get(head[8:12], "a video or another picture format")
    detail = f"{shown} is {found}" if found else f"{shown} starts with {head[:8].hex(' ')}"
    known = "JPEG, PNG, WebP, BMP, TIFF" + (" or AVIF" if "AVIF" in Image.OPEN else "")
    return DatasetError("Not a picture that can be read", detail, f"Convert it to {known}, or remove it.")


def plain_webp(head: bytes, size: int) -> tuple[int, int] | None:
    """Width and height of a still WebP without metadata, from its first bytes; None for everything else.

    Pillow reads the whole file and makes a canvas before it tells a WebP's size, a millisecond each.
    """
    whole = len(head) >= 30 and int.from_bytes(head[4:8], "little") + 8 in (size, size - 1)
    if not whole or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    kind, data = head[12:16], head[20:]
    if kind == b"VP8 " and data[3:6] == b"\x9d\x01\x2a" and not data[0] & 1:
        return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF
    if kind == b"VP8L" and data[0] == 0x2F:
        bits = int.from_bytes(data[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None
