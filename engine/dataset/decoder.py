"""Pictures as pixels, decoded in a child process of its own.

One child serves the cache and the screen. A hostile or broken picture costs itself only: the child has limits on
memory and time, and if it dies the picture is named and another child goes on with the next. In goes a path, out
come sizes or uint8 RGB arrays; every refusal is a DatasetError.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.dataset.buckets import Placement
from engine.errors import DatasetError
from engine.text import safe_text

_ROOT = Path(__file__).resolve().parents[2]
# The package's root goes to the end of the path: needed only where the package is not installed.
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]);from engine.dataset.decoder_child import main; main(int(sys.argv[2]))"
)
MEMORY_LIMIT = 2 << 30
"""Bytes of address space that a child may have."""
_START_LIMIT_S = 60.0
# The child handles strangers' pictures: what it says of its own replies is not believed either.
_MAX_HEADER = 16 * 2**20
_MAX_PAYLOAD = 3 * 10**9

_T = TypeVar("_T")
_Understood = Callable[[dict[str, Any], bytearray], _T]
"""Makes of a reply's header and bytes what was asked for; LookupError, TypeError and ValueError: it is none."""

_READ_AHEAD = 1 << 16
_BATCH = 64
"""Pictures asked for at once: the answers' latency is hidden, and another thread waits for at most one batch."""


@dataclass(frozen=True)
class ImageInfo:
    """What a picture's header tells: size in pixels after the EXIF rotation, format, and (code, text) warnings."""

    width: int
    height: int
    format: str
    warnings: tuple[tuple[str, str], ...] = ()
    turned: int = 1
    """The turn that its EXIF data ask for, 1 (none) to 8."""
    mode: str = ""
    """Pillow's name for its kind of pixels: RGB, CMYK ...; empty where only a WebP's first bytes were read."""


@dataclass(frozen=True)
class Look:
    """A picture looked at once: what its header tells, and pixels (h, w, 3) of two kinds.

    Attributes:
        info: also warnings that only decoding shows.
        small: the whole picture made small, turned by EXIF.
        patch: its middle at full size, not turned: a JPEG's blocks of 8 begin at its edges. One pixel of a large
            JPEG, which is not decoded at full size.
        quantised: mean divisor of a JPEG's brightness; 0 where it is none.
        transparent: share of the picture that is, 0 to 1.
    """

    info: ImageInfo
    small: NDArray[np.uint8]
    patch: NDArray[np.uint8]
    quantised: float = 0.0
    transparent: float = 0.0


class Decoder:
    """One child process that opens pictures; safe to use from several threads, one request at a time.

    The child starts with the first request. A picture of more than ``max_megapixels`` is refused by its header, one
    that takes longer than ``time_limit_s`` or needs more than ``memory_limit`` bytes is given up. Close the decoder,
    or use it as a context manager; a parent that dies takes the child with it.
    """

    workers = 1
    """Pictures that are decoded side by side."""

    def __init__(
        self, max_megapixels: float = 64.0, time_limit_s: float = 20.0, memory_limit: int = MEMORY_LIMIT
    ) -> None:
        self._limits: dict[str, float] = {"time_limit_s": time_limit_s}
        self.admit(max_megapixels)
        self._time_limit_s = time_limit_s
        self._memory_limit = memory_limit
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._closed = False

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child and wait for it. Closing twice is fine; using the decoder afterwards is not."""
        with self._lock:
            self._closed = True
            self._drop_child()

    def admit(self, max_megapixels: float) -> None:
        """From the next request on, refuse pictures of more than this: another dataset may have another limit."""
        self._limits = {**self._limits, "max_pixels": int(max_megapixels * 1e6)}

    def probe(self, path: Path) -> ImageInfo:
        """Read the header only.

        Raises:
            DatasetError: not a picture that can be trained on.
        """
        return self._one("probe", path, _image_info)

    def probe_many(self, paths: Sequence[Path]) -> Iterator[ImageInfo | DatasetError]:
        """Read many headers; one result per path, in order, errors as values."""
        for start in range(0, len(paths), _BATCH):
            yield from self._exchange({"op": "probe"}, paths[start : start + _BATCH], _image_info)

    def verify(self, path: Path, background: str = "white") -> ImageInfo:
        """Decode the whole picture and throw the pixels away: truncation and transparency show only so.

        Raises:
            DatasetError: not a picture that can be trained on.
        """
        return self._one("verify", path, _image_info, background=background)

    def pixels(
        self, path: Path, placement: Placement, background: str, flip: bool, reduction: int = 1
    ) -> NDArray[np.uint8]:
        """Decode, turn by EXIF, put on ``background``, scale, crop to the bucket, mirror.

        ``reduction`` decodes a JPEG at a half, a quarter or an eighth of its size, see
        :func:`~engine.dataset.buckets.jpeg_reduction`.

        Returns:
            uint8 RGB, shape (bucket_h, bucket_w, 3), writable.

        Raises:
            DatasetError: not a picture that can be trained on, or not the one that the placement was made for.
        """
        return self._one(
            "pixels",
            path,
            lambda header, payload: _array(header, payload, (placement.bucket_w, placement.bucket_h)),
            placement=dataclasses.astuple(placement),
            background=background,
            flip=flip,
            reduction=reduction,
        )

    def thumbnail(self, path: Path, max_side: int, background: str = "white") -> NDArray[np.uint8]:
        """The whole picture, at most ``max_side`` pixels wide and high; uint8 RGB, shape (h, w, 3).

        Raises:
            DatasetError: not a picture that can be read.
        """
        return self._one("thumbnail", path, _array, max_side=max_side, background=background)

    def look(self, path: Path, max_side: int, patch: int, background: str = "white") -> Look:
        """All that a picture's quality is told by, of one decoding; ``patch`` is the side of its middle.

        Raises:
            DatasetError: not a picture that can be trained on.
        """
        return self._one("look", path, _looked, max_side=max_side, patch=patch, background=background)

    def _one(self, operation: str, path: Path, understood: _Understood[_T], **options: Any) -> _T:
        outcome = self._exchange({"op": operation, **options}, [path], understood)[0]
        if isinstance(outcome, DatasetError):
            raise outcome
        return outcome

    def _exchange(
        self, request: dict[str, Any], paths: Sequence[Path], understood: _Understood[_T]
    ) -> list[_T | DatasetError]:
        """One outcome per path. A child that dies, or lies, takes only the picture it was at."""
        outcomes: list[_T | DatasetError] = []
        # Absolute: the child stays in the folder that it was started in.
        places = [os.path.abspath(path) for path in paths]
        with self._lock:
            while len(outcomes) < len(places):
                rest = places[len(outcomes) :]
                try:
                    child = self._running_child()
                    child.send({**request, **self._limits, "paths": rest}, self._time_limit_s)
                    for _ in rest:
                        outcomes.append(_outcome(understood, *child.receive(self._time_limit_s)))
                except _ChildLostError as lost:
                    self._drop_child()
                    outcomes.append(_died(paths[len(outcomes)], lost))
        return outcomes

    def _running_child(self) -> _Child:
        if self._closed:
            raise RuntimeError("the decoder was closed")
        if self._child is None or not self._child.alive():
            self._drop_child()
            self._child = _Child(self._memory_limit)
        return self._child

    def _drop_child(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


def _image_info(header: dict[str, Any], _: bytearray) -> ImageInfo:
    warnings = tuple((safe_text(code, 100), safe_text(text, 500)) for code, text in header["warnings"])
    width, height = header["width"], header["height"]
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise ValueError("a picture without pixels")
    turned = header.get("turned", 1)
    if turned not in range(1, 9):
        raise ValueError("no turn that EXIF knows")
    return ImageInfo(
        width, height, safe_text(header["format"], 20), warnings, turned, safe_text(header.get("mode", ""), 20)
    )


def _looked(header: dict[str, Any], payload: bytearray) -> Look:
    width, height = header["size"]
    cut = width * height * 3
    small = _array({"size": (width, height)}, payload[:cut])
    patch = _array({"size": header["patch"]}, payload[cut:])
    quantised, share = min(max(float(header["quantised"]), 0.0), 65535.0), float(header["transparent"])
    return Look(_image_info(header, payload), small, patch, quantised, min(max(share, 0.0), 1.0))


def _array(header: dict[str, Any], payload: bytearray, expected: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """The pixels of a reply; ``expected`` is the (width, height) that was asked for."""
    width, height = header["size"]
    if expected not in (None, (width, height)):
        raise ValueError("another size than was asked for")
    return np.frombuffer(payload, dtype=np.uint8).reshape(height, width, 3)


def _outcome(understood: _Understood[_T], header: dict[str, Any], payload: bytearray) -> _T | DatasetError:
    try:
        if "error" not in header:
            return understood(header, payload)
        title, detail, hint = (safe_text(part) for part in header["error"])
    except (LookupError, TypeError, ValueError) as err:
        raise _ChildLostError("its answer makes no sense") from err
    return DatasetError(title, detail, hint)


def _died(path: Path, lost: _ChildLostError) -> DatasetError:
    return DatasetError(
        "The decoder died on this picture",
        f"{safe_text(path)}: {safe_text(lost, 500)}",
        "Open and save it again with a picture editor, replace it, or remove it.",
    )


class _ChildLostError(Exception):
    """The child died, or did not answer in time."""


class _Child:
    """The process and its two pipes: length-prefixed JSON out, length-prefixed JSON and raw bytes in."""

    def __init__(self, memory_limit: int) -> None:
        # A file, not a pipe: nobody has to read it, and the last words are there when the child is not.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in end()
        # A session of its own: Ctrl-C and a dropped terminal are the parent's business. -P: the working folder is
        # not a place to import from.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, str(_ROOT), str(memory_limit)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._ahead = bytearray()
        try:
            self.receive(_START_LIMIT_S)
        except _ChildLostError as lost:
            self.end()
            raise DatasetError(
                "The picture decoder does not start",
                safe_text(lost, 500),
                "Try: python -c 'import PIL.Image'. If that fails, install Pillow anew.",
            ) from lost

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def end(self) -> None:
        """Let the process go, kill it if it stays, and wait for it: no zombie is left."""
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        try:
            self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def send(self, message: dict[str, Any], time_limit_s: float) -> None:
        """Write one request."""
        body = json.dumps(message).encode()
        data = memoryview(len(body).to_bytes(4, "little") + body)
        deadline = time.monotonic() + time_limit_s
        while data:
            try:
                data = data[os.write(self._in, data) :]
            except BlockingIOError:
                self._wait(self._in, select.POLLOUT, deadline)
            except BrokenPipeError as err:
                raise self._lost() from err

    def receive(self, time_limit_s: float) -> tuple[dict[str, Any], bytearray]:
        """Read one reply: its header and raw bytes."""
        deadline = time.monotonic() + time_limit_s
        length = int.from_bytes(self._read(4, deadline), "little")
        if length > _MAX_HEADER:
            raise _ChildLostError("its answer makes no sense")
        try:
            header = json.loads(self._read(length, deadline))
        except (ValueError, RecursionError) as err:
            raise _ChildLostError("its answer makes no sense") from err
        payload = header.get("payload") if isinstance(header, dict) else None
        if not isinstance(payload, int) or not 0 <= payload <= _MAX_PAYLOAD:
            raise _ChildLostError("its answer makes no sense")
        return header, self._read(payload, deadline)

    def _read(self, count: int, deadline: float) -> bytearray:
        """``count`` bytes: first those read ahead, the rest from the pipe, which is read ahead in turn."""
        while len(self._ahead) < count:
            try:
                got = os.read(self._out, max(_READ_AHEAD, count - len(self._ahead)))
            except BlockingIOError:
                self._wait(self._out, select.POLLIN, deadline)
                continue
            if not got:
                raise self._lost()
            self._ahead += got
        taken = self._ahead[:count]
        del self._ahead[:count]
        return taken

    def _wait(self, fd: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(fd, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            self._process.kill()
            raise _ChildLostError("no answer within the time limit")

    def _lost(self) -> _ChildLostError:
        try:
            code = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            code = 0
        self._errors.seek(0)
        last_words = self._errors.read()[-400:].decode(errors="replace").strip().rpartition("\n")[2]
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return _ChildLostError(f"{how}; {last_words}" if last_words else how)
