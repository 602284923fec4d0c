"""The decoder's child process as its parent sees it: started, asked, listened to within a time, and ended.

What goes to and fro is a length, JSON and raw bytes. The child handles strangers' pictures, so what it says of its
own replies is not believed either. :mod:`engine.dataset.decoder` says what is asked.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from engine.errors import DatasetError
from engine.text import safe_text

_ROOT = Path(__file__).resolve().parents[2]
# The package's root goes to the end of the path: needed only where the package is not installed.
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]);from engine.dataset.decoder_child import main; main(int(sys.argv[2]))"
)
_START_LIMIT_S = 60.0
_MAX_HEADER = 16 * 2**20
_MAX_PAYLOAD = 3 * 10**9
_READ_AHEAD = 1 << 16


class ChildLost(Exception):
    """The child died, or did not answer in time."""


class Child:
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
        except ChildLost as lost:
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
            raise ChildLost("its answer makes no sense")
        try:
            header = json.loads(self._read(length, deadline))
        except (ValueError, RecursionError) as err:
            raise ChildLost("its answer makes no sense") from err
        payload = header.get("payload") if isinstance(header, dict) else None
        if not isinstance(payload, int) or not 0 <= payload <= _MAX_PAYLOAD:
            raise ChildLost("its answer makes no sense")
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
            raise ChildLost("no answer within the time limit")

    def _lost(self) -> ChildLost:
        try:
            code = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            code = 0
        self._errors.seek(0)
        last_words = self._errors.read()[-400:].decode(errors="replace").strip().rpartition("\n")[2]
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return ChildLost(f"{how}; {last_words}" if last_words else how)
