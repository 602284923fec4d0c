"""The decoder's child process: opens pictures that may be broken or hostile, so that nothing else has to.

Imports Pillow and nothing of weight. Requests come on stdin as a length and JSON, one reply per picture goes to
stdout as a length, JSON and, for pixels, raw RGB bytes. Only formats of an allow-list are opened, sizes are checked
before anything is decoded, memory is limited, and a picture that takes too long ends the process. Once it serves,
nothing in Python may start a program, use the network or change a file. What a broken picture is known to raise
becomes that picture's error; anything else ends the process, and the parent starts anew.
End of stdin is the order to leave, so no child outlives its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import IO, Any

from PIL import AvifImagePlugin, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from engine.dataset.magic import MEND, plain_webp, unknown
from engine.dataset.regular import open_regular
from engine.errors import DatasetError
from engine.text import safe_text

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF")
OTHER_FORMATS = {"first_frame": ("GIF",)}
"""What an operation opens in place of these: a GIF only where the user has it converted."""
_OUTPUT_LIMIT = 1 << 20
"""Bytes a file written here may have: libraries write warnings to stderr, which is a file."""

# What Pillow is known to raise on broken or hostile files. OSError covers truncation, ValueError text-chunk bombs
# and bad numbers, the others come out of half-read headers.
_BROKEN = (
    OSError, ValueError, TypeError, LookupError, EOFError, SyntaxError, ArithmeticError, RuntimeError, MemoryError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip

_REFUSED_MODES = {
    "F": "floating-point samples have no agreed white",
    "I": "signed and 32-bit samples have no agreed white",
    "LAB": "L*a*b* samples are not RGB",
    "HSV": "HSV samples are not RGB",
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACKGROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0), "grey": (128, 128, 128)}

_FORBIDDEN = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "pty.", "ctypes.",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
)  # fmt: skip
"""Python's audit events that no picture has a reason to cause."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

Reply = tuple[dict[str, Any], bytes]


def main(memory_limit: int) -> None:
    """Serve requests until stdin ends, in ``memory_limit`` bytes of address space."""
    source, sink = _private_streams()
    _limit_resources(memory_limit)
    # One thread: others would cost address space, and the parent has its own parallelism.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    # Our own limit is checked on every header; Pillow's would only add warnings.
    Image.MAX_IMAGE_PIXELS = None
    Image.init()
    sys.dont_write_bytecode = True
    sys.addaudithook(_refuse_reach)
    _write(sink, {"formats": [name for name in FORMATS if name in Image.OPEN]}, b"")
    while (request := _read(source)) is not None:
        for path in request["paths"]:
            signal.alarm(int(request["time_limit_s"]) + 10)
            _write(sink, *_serve(path, request))
            signal.alarm(0)


def _private_streams() -> tuple[IO[bytes], IO[bytes]]:
    """stdin and stdout for the protocol alone: what a library prints to descriptor 1 goes to stderr."""
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return sys.stdin.buffer, sink


def _limit_resources(memory_limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_OUTPUT_LIMIT, _OUTPUT_LIMIT))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))


def _refuse_reach(event: str, args: tuple[Any, ...]) -> None:
    """Keep Python code, such as a plugin of Pillow that calls another program, to reading pictures."""
    writing = event == "open" and isinstance(args[2], int) and args[2] & _WRITING
    if writing or event.startswith(_FORBIDDEN):
        raise PermissionError(f"decoding a picture must not do this: {event}")


def _read(source: IO[bytes]) -> dict[str, Any] | None:
    prefix = source.read(4)
    if len(prefix) < 4:
        return None
    body = source.read(int.from_bytes(prefix, "little"))
    request: dict[str, Any] = json.loads(body)
    return request


def _write(sink: IO[bytes], header: dict[str, Any], payload: bytes) -> None:
    body = json.dumps({**header, "payload": len(payload)}).encode()
    sink.write(len(body).to_bytes(4, "little") + body + payload)
    sink.flush()


def _serve(path: str, request: dict[str, Any]) -> Reply:
    """One picture's reply; everything that a broken file is known to raise becomes its error."""
    try:
        file, head = _open_file(path)
        with file:
            size = plain_webp(head, os.fstat(file.fileno()).st_size) if request["op"] == "probe" else None
            if size is not None:
                _check_size(path, *size, request["max_pixels"])
                return {"width": size[0], "height": size[1], "format": "WEBP", "warnings": []}, b""
            formats = OTHER_FORMATS.get(request["op"], FORMATS)
            with _opened(path, file, head, formats, request["max_pixels"]) as picture:
                return _OPERATIONS[request["op"]](picture, request)
    except DatasetError as err:
        return {"error": [err.title, err.detail, err.hint]}, b""
    except MemoryError:
        detail = f"{safe_text(path)} needs more memory than the decoder may take"
        return _failed("A picture is too large", detail, "Scale it down, or remove it.")
    except _BROKEN as err:
        what = safe_text(err, 300) or type(err).__name__
        return _failed("A picture is broken", f"{safe_text(path)}: {what}", MEND)


def _failed(title: str, detail: str, hint: str) -> Reply:
    return {"error": [title, detail, hint]}, b""


def _open_file(path: str) -> tuple[IO[bytes], bytes]:
    """A regular file at its start, and its first 64 bytes."""
    file = os.fdopen(open_regular(path), "rb")
    head = file.read(64)
    if head:
        file.seek(0)
        return file, head
    file.close()
    raise DatasetError("A picture is empty", f"{safe_text(path)} has no bytes", "Copy it again or remove it.")


@contextlib.contextmanager
def _opened(
    path: str, file: IO[bytes], head: bytes, formats: tuple[str, ...], max_pixels: int
) -> Iterator[Image.Image]:
    """Open the header of an allow-listed picture of sane size and mode; pixels are not read yet."""
    try:
        picture = Image.open(file, formats=formats)
    except UnidentifiedImageError as err:
        if formats != FORMATS:
            raise DatasetError(f"Not a {' or '.join(formats)}", safe_text(path), MEND) from err
        raise unknown(path, head) from err
    with picture:
        _check_size(path, *picture.size, max_pixels)
        if picture.mode in _REFUSED_MODES:
            raise DatasetError(
                "A picture's kind of pixels cannot be used",
                f"{safe_text(path)} is of mode {picture.mode}: {_REFUSED_MODES[picture.mode]}",
                "Export it as 8-bit or 16-bit RGB or greyscale.",
            )
        yield picture


def _check_size(path: str, width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise DatasetError("A picture without pixels", f"{safe_text(path)} is {width} x {height}", "Remove it.")
    if width * height > max_pixels:
        raise DatasetError(
            "A picture is too large",
            f"{safe_text(path)} is {width} x {height}, {width * height / 1e6:.0f} megapixels; "
            f"the limit is {max_pixels / 1e6:g}",
            "Scale it down, or raise dataset.max_megapixels.",
        )


def _orientation(picture: Image.Image, warnings: list[list[str]]) -> int:
    """The turn its EXIF asks for, 1 to 8. Read before decoding, so that a probe and a decode agree."""
    if picture.format == "TIFF":
        return 1  # Pillow turns TIFFs itself, sizes included.
    try:
        # PNG's own getexif() decodes the whole picture to look behind the pixels; the header is enough.
        value = Image.Image.getexif(picture).get(0x0112, 1)
    except _BROKEN:
        warnings.append(["exif", "its EXIF data are damaged, so a rotation may be missed"])
        return 1
    return value if value in _TURNS else 1


def _info(picture: Image.Image, orientation: int, warnings: list[list[str]]) -> dict[str, Any]:
    width, height = picture.size
    if orientation >= 5:
        width, height = height, width
    if getattr(picture, "is_animated", False) and picture.format != "MPO":
        warnings.append(["animated", "it has several frames or pages; only the first is used"])
    told = {"width": width, "height": height, "format": picture.format, "warnings": warnings}
    return told | {"turned": orientation, "mode": picture.mode}


def _probe(picture: Image.Image, request: dict[str, Any]) -> Reply:
    warnings: list[list[str]] = []
    return _info(picture, _orientation(picture, warnings), warnings), b""


def _verify(picture: Image.Image, request: dict[str, Any]) -> Reply:
    """Decode wholly, if coarsely where the format allows, and say what a decode alone can tell."""
    warnings: list[list[str]] = []
    info = _info(picture, _orientation(picture, warnings), warnings)
    picture.draft(None, (max(1, picture.width // 8), max(1, picture.height // 8)))
    _warn_of_transparency(_flattened(picture, request["background"])[1], request["background"], warnings)
    return info, b""


def _warn_of_transparency(share: float, colour: str, warnings: list[list[str]]) -> None:
    if share > 0.01:
        warnings.append(["transparent", f"{share:.0%} of it is transparent and becomes {colour}"])


def _look(picture: Image.Image, request: dict[str, Any]) -> Reply:
    """What a picture's quality is told by: itself made small, and its middle as it is.

    A large JPEG is decoded coarsely, as whatever is made small may be: it has no middle then, and tells how strongly
    it was quantised.
    """
    warnings: list[list[str]] = []
    orientation = _orientation(picture, warnings)
    info, size, side = _info(picture, orientation, warnings), picture.size, request["max_side"]
    told = info | {"quantised": _quantised(picture)}
    picture.draft(None, (side, side))
    whole = picture.size == size
    rgb, share = _flattened(picture, request["background"])
    _warn_of_transparency(share, request["background"], warnings)
    patch = _middle(rgb, request["patch"] if whole else 0)
    rgb = rgb.transpose(_TURNS[orientation]) if orientation in _TURNS else rgb
    rgb.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    told |= {"size": rgb.size, "patch": patch.size, "transparent": share}
    return told, rgb.tobytes() + patch.tobytes()


def _middle(rgb: Image.Image, side: int) -> Image.Image:
    """A copy of the middle, from a multiple of 8 on: a JPEG's blocks begin at the file's own upper left corner."""
    left, top = (max(0, (extent - side) // 2) // 8 * 8 for extent in rgb.size)
    right, bottom = min(rgb.width, left + side), min(rgb.height, top + side)
    return rgb.crop((left, top, max(left + 1, right), max(top + 1, bottom)))


def _quantised(picture: Image.Image) -> float:
    """Mean divisor of a JPEG's brightness; 0 where it tells none. The standard's own table, quality 50, has 58."""
    table = (getattr(picture, "quantization", None) or {}).get(0, ())
    return sum(table) / len(table) if len(table) else 0.0


def _pixels(picture: Image.Image, request: dict[str, Any]) -> Reply:
    bucket_w, bucket_h, resized_w, resized_h, left, top = request["placement"]
    reduction, size = request["reduction"], picture.size
    reduced = _reduce(picture, reduction)
    rgb = _upright(picture, request["background"])
    fitting = True
    if request["box"] is not None:
        left_cut, top_cut, wide, high = (side // reduction for side in request["box"])
        fitting = left_cut + wide <= rgb.width and top_cut + high <= rgb.height
        rgb = rgb.crop((left_cut, top_cut, left_cut + wide, top_cut + high))
    width, height = rgb.size
    # Rounding moves each resized side by half a pixel at most; more means that another picture was scanned.
    apart = abs(width * resized_h - height * resized_w) * reduction
    if not reduced or not fitting or apart > (width + height) * reduction / 2 + 1:
        raise DatasetError(
            "A picture changed since it was scanned",
            f"it is now {size[0]} x {size[1]}, which does not fit the {resized_w} x {resized_h} chosen for it",
            "Start again: the dataset is scanned anew.",
        )
    across, down = width / resized_w, height / resized_h
    # Scaling only the part that is kept gives the same pixels as cropping afterwards, at bounded memory even for a
    # picture of 1 x 60000.
    box = (
        left * across, top * down,
        min(width, (left + bucket_w) * across), min(height, (top + bucket_h) * down),
    )  # fmt: skip
    # Lanczos in both directions; the gap lets a whole-number box filter do the first part of large reductions.
    scaled = rgb.resize((bucket_w, bucket_h), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    if request["flip"]:
        scaled = scaled.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return {"size": scaled.size}, scaled.tobytes()


def _mask(picture: Image.Image, request: dict[str, Any]) -> Reply:
    """What of the picture counts, as means over whole cells; Pillow's box filter weighs parts of pixels by area."""
    bucket_w, bucket_h, resized_w, resized_h, left, top = request["placement"]
    orientation = _orientation(picture, [])
    grey = _alpha(picture) if request["alpha"] else _flattened(picture, "black")[0].convert("L")
    grey = grey.transpose(_TURNS[orientation]) if orientation in _TURNS else grey
    (picture_w, picture_h), (cut_x, cut_y, wide, high) = request["picture"], request["box"]
    if abs(grey.width * picture_h - grey.height * picture_w) > 0.01 * grey.width * picture_h:
        raise DatasetError(
            "A mask has another shape than its picture",
            f"it is {grey.width} x {grey.height}, the picture {picture_w} x {picture_h}",
            "Make it of the whole picture, at any size.",
        )
    across, down = grey.width / picture_w, grey.height / picture_h
    x, y = cut_x + left * wide / resized_w, cut_y + top * high / resized_h
    box = (
        x * across, y * down,
        min(grey.width, (x + bucket_w * wide / resized_w) * across),
        min(grey.height, (y + bucket_h * high / resized_h) * down),
    )  # fmt: skip
    scaled = grey.resize(tuple(request["size"]), Image.Resampling.BOX, box=box)
    if request["flip"]:
        scaled = scaled.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return {"size": scaled.size}, scaled.convert("RGB").tobytes()


def _alpha(picture: Image.Image) -> Image.Image:
    """A picture's opacity; all of it where it has no alpha channel."""
    picture.load()
    if "transparency" not in picture.info and picture.mode not in ("LA", "La", "PA", "RGBA", "RGBa"):
        return Image.new("L", picture.size, 255)
    return picture.convert("RGBA").getchannel("A")


def _reduce(picture: Image.Image, reduction: int) -> bool:
    """Let a JPEG's decoder leave out what a picture of 1 / ``reduction`` the size does not show; False: it cannot."""
    width, height = picture.size
    if reduction > 1:
        picture.draft(None, (width // reduction, height // reduction))
    return (picture.width * reduction, picture.height * reduction) == (width, height)


def _thumbnail(picture: Image.Image, request: dict[str, Any]) -> Reply:
    side = request["max_side"]
    picture.draft(None, (side, side))
    rgb = _upright(picture, request["background"])
    rgb.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return {"size": rgb.size}, rgb.tobytes()


def _first_frame(picture: Image.Image, request: dict[str, Any]) -> Reply:
    rgb = _upright(picture, request["background"])
    return {"size": rgb.size}, rgb.tobytes()


def _upright(picture: Image.Image, background: str) -> Image.Image:
    """The whole picture as RGB on its background, turned as EXIF asks."""
    orientation = _orientation(picture, [])
    rgb = _flattened(picture, background)[0]
    return rgb.transpose(_TURNS[orientation]) if orientation in _TURNS else rgb


def _flattened(picture: Image.Image, background: str) -> tuple[Image.Image, float]:
    """Decode to RGB over a colour; also the share of the picture that was transparent."""
    picture.load()
    if picture.mode.startswith("I;16"):
        # convert("L") would clip at 255: nearly all of it white. 65535 / 257 = 255.
        grey = picture.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
        return (ImageOps.invert(grey) if _white_is_zero(picture) else grey).convert("RGB"), 0.0
    if "transparency" not in picture.info and picture.mode not in ("LA", "La", "PA", "RGBA", "RGBa"):
        return picture if picture.mode == "RGB" else picture.convert("RGB"), 0.0
    rgba = picture.convert("RGBA")
    alpha = rgba.getchannel("A")
    flat = Image.new("RGB", rgba.size, _BACKGROUNDS[background])
    flat.paste(rgba, mask=alpha)
    opaque = sum(value * count for value, count in enumerate(alpha.histogram()))
    return flat, 1.0 - opaque / (255 * rgba.width * rgba.height)


def _white_is_zero(picture: Image.Image) -> bool:
    """Whether a 16-bit TIFF counts from white; Pillow heeds that tag at 8 bits only."""
    return isinstance(picture, TiffImagePlugin.TiffImageFile) and picture.tag_v2.get(262) == 0


_OPERATIONS = {
    "probe": _probe, "verify": _verify, "look": _look, "pixels": _pixels, "mask": _mask, "thumbnail": _thumbnail,
    "first_frame": _first_frame,
}  # fmt: skip
