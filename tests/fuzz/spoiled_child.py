"""A decoder's child that does something terrible where a picture's name says so.

``spoil`` changes the child's module before it serves; ``BOOT`` starts such a child in place of the ordinary one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from engine.dataset import decoder_child;"
    "from tests.fuzz.spoiled_child import spoil; spoil(decoder_child); decoder_child.main(int(sys.argv[2]))"
)


def _eat(kind: type) -> None:
    kept = []
    while True:
        kept.append(kind(1 << 25))


def _shout() -> None:
    while True:
        os.write(2, b"\x1b]52;c;QQ==\x1b\\" * 1000)


def _jump() -> None:
    ctypes.CFUNCTYPE(None)(0)()


DEEDS: dict[str, Any] = {
    "hang": lambda: time.sleep(3600),
    "spin": lambda: [None for _ in iter(int, 1)],
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "nowhere": _jump,
    "abort": os.abort,
    "oomkill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "leave": lambda: os._exit(3),
    "raise": lambda: (_ for _ in ()).throw(KeyboardInterrupt()),
    "eat": lambda: _eat(bytearray),
    "deep": lambda: (lambda f: f(f))(lambda f: f(f)),
    "shout": _shout,
    "connect": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
    "listen": lambda: socket.socketpair(),
    "run": lambda: subprocess.run(["touch", "ran"]),
    "fork": os.fork,
    "system": lambda: os.system("touch ran"),
    "write": lambda: Path("written").write_text("x"),
    "remove": lambda: os.unlink(sys.executable + ".absent"),
}
"""What it does when it is to decode a picture of that name."""

ANSWERS: dict[str, tuple[dict[str, Any] | list[Any], bytes]] = {
    "nothing": ({}, b""),
    "list": ([1, 2], b""),
    "short": ({"size": [8, 8]}, bytes(5)),
    "other": ({"size": [1, 1]}, bytes(3)),
    "large": ({"size": [64, 64]}, bytes(64 * 64 * 3)),
    "minus": ({"size": [-1, -64]}, bytes(192)),
    "words": ({"size": "ab"}, b""),
    "error": ({"error": ["only one"]}, b""),
    "width": ({"width": "\x1b[2J", "height": None, "format": 3, "warnings": 7, "size": [0, 0]}, b""),
}
"""What it answers."""
RAW: dict[str, bytes] = {
    "endless": b"\xff\xff\xff\xff",
    "binary": b"\x04\0\0\0\xff\xfe\xfd\xfc",
    "nested": (200_000).to_bytes(4, "little") + b"[" * 200_000,
    "greedy": (22).to_bytes(4, "little") + b'{"payload": 999999999}'[:22] + bytes(100),
    "negative": (15).to_bytes(4, "little") + b'{"payload": -1}',
}
"""What it writes in place of an answer."""


def spoil(child: ModuleType) -> None:
    """Make a picture called ``hang.png`` hang the child, and so on for every deed and answer."""
    serve, write = child._serve, child._write

    def spoiled(path: str, request: dict[str, Any]) -> Any:
        name = Path(path).stem
        if name in DEEDS:
            try:
                DEEDS[name]()
            except child._BROKEN as err:
                return child._failed("A picture is broken", f"{path}: {type(err).__name__}: {err}", "")
        if name in ANSWERS:
            return ANSWERS[name]
        if name in RAW:
            return RAW[name], b""
        return serve(path, request)

    def spoiled_write(sink: Any, header: Any, payload: bytes) -> None:
        if isinstance(header, bytes):
            sink.write(header)
            sink.flush()
        elif isinstance(header, list):
            sink.write((8).to_bytes(4, "little") + b"[1,2,3] ")
            sink.flush()
        else:
            write(sink, header, payload)

    child._serve, child._write = spoiled, spoiled_write
