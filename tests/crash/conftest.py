"""One zygote for all crash tests of a process; its homes lie in memory where there is room, for fsync takes long."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Zygote

MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """The process whose children are killed."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2**30
    with tempfile.TemporaryDirectory(prefix="kiln-crash-", dir=MEMORY if roomy else None) as place:
        zygote = Zygote(Path(place).resolve())
        try:
            yield zygote
        finally:
            zygote.close()
