"""How running out of the device's memory is told from other errors, and what it says in a line.

Stands alone because caches, sampling and the ladder all ask, each on a floor of its own.
"""

from __future__ import annotations

import torch

from engine.text import safe_text

_WORDS = ("out of memory", "_STATUS_ALLOC_FAILED")
"""Libraries below torch raise plain errors in words of their own: the driver's, cuBLAS's, cuDNN's."""


def ran_out(err: BaseException) -> bool:
    """Whether an error says that the device's memory is used up."""
    if isinstance(err, torch.OutOfMemoryError):
        return True
    return isinstance(err, RuntimeError) and any(words in str(err) for words in _WORDS)


def first_line(err: BaseException) -> str:
    """What an error says, in a line: torch goes on for a page."""
    return safe_text((str(err).strip().splitlines() or [type(err).__name__])[0], 300)
