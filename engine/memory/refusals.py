"""What a kernel raises that does not build or run on this machine, and how a log says it in one line."""

from __future__ import annotations

import subprocess


def kernel_errors() -> tuple[type[Exception], ...]:
    """For an ``except``, where it is asked for only once something was raised: looking it up may import triton.

    torch raises RuntimeError; Triton errors of its own, CalledProcessError or OSError where its launcher finds no
    compiler, and ImportError where triton itself is missing or broken.
    """
    errors: tuple[type[Exception], ...] = (RuntimeError, ImportError, OSError, subprocess.SubprocessError)
    try:
        from triton.errors import TritonError  # type: ignore[import-untyped]
    except ImportError:
        return errors
    return (*errors, TritonError)


def in_a_line(err: BaseException) -> str:
    """An error's kind and the first line of what it says, at most 200 characters of it."""
    line = (str(err).strip().splitlines() or [""])[0][:200]
    return f"{type(err).__name__}: {line}" if line else type(err).__name__
