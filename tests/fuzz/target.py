"""What one target of the fuzzers is, and the folder in which targets put the bytes that a reader wants as a file."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from engine.errors import EngineError

_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class Target:
    """A parser and how it is driven.

    Attributes:
        name: as given to ``python -m tests.fuzz``.
        run: feeds it some bytes; raises AssertionError where a promise is broken.
        allowed: what it may raise; everything else is a finding.
        seeds: makes inputs to start from.
        covers: the functions it drives, as ``module.function``, for the list of parsers without a target.
        found: inputs that broke it once; run first, for ever.
    """

    name: str
    run: Callable[[bytes], None]
    allowed: tuple[type[Exception], ...]
    seeds: Callable[[], list[bytes]]
    covers: tuple[str, ...]
    found: tuple[bytes, ...] = field(default=())

    def try_one(self, data: bytes) -> bool:
        """Whether ``data`` was accepted; False where it was refused as it may be.

        Raises:
            Exception: a finding.
        """
        try:
            self.run(data)
        except self.allowed as err:
            if isinstance(err, EngineError):
                assert_harmless(err.title, err.detail, err.hint)
            return False
        return True


def assert_harmless(*texts: str) -> None:
    """Nothing in ``texts`` may act on a terminal, or be longer than anybody reads."""
    for text in texts:
        found = _CONTROLS.search(text)
        assert found is None, f"U+{ord(found[0]):04X} in {text[:200]!a}"
        assert len(text) < 100_000, f"{len(text)} characters"


@cache
def scratch() -> Path:
    """A folder of this process's own, removed at its end."""
    memory = Path("/dev/shm")  # no disk to wait for
    folder = Path(tempfile.mkdtemp(prefix="kiln-fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def as_file(data: bytes, name: str) -> Path:
    """``data`` in a file of this name."""
    path = scratch() / name
    path.write_bytes(data)
    return path


def text_of(data: bytes) -> str:
    """``data`` as text, whatever it is; lone surrogates included, as file names have them."""
    return data.decode("utf-8", "surrogateescape")
