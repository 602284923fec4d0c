"""How a GPU that is lost to this process is told from other errors. Torch-free.

After such an error every further call into CUDA fails, or hangs: what ends a run must make none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType

_WORDS = (
    "CUDA error",
    "CUDA driver error",
    "CUDA-capable device",
    "CUDA_ERROR_",
    "device-side assert",
    "unspecified launch failure",
    "uncorrectable ECC",
    "GPU is lost",
    "fallen off the bus",
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUBLAS_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR",
)
_MEMORY = ("out of memory", "OUT_OF_MEMORY", "_STATUS_ALLOC_FAILED")


def is_lost(err: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that the GPU is lost to this process."""
    return any(_says_lost(each) for each in chain(err))


def chain(err: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came from, newest first."""
    seen: set[int] = set()
    while err is not None and id(err) not in seen:
        seen.add(id(err))
        yield err
        err = err.__cause__ or err.__context__


def _says_lost(err: BaseException) -> bool:
    if not isinstance(err, RuntimeError) or type(err).__name__ == "OutOfMemoryError":
        return False
    text = str(err)
    if any(words in text for words in _MEMORY):
        return False
    return type(err).__name__ == "AcceleratorError" or any(words in text for words in _WORDS)


Leave = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], bool]


def unless_lost(close: Callable[[], None], abandon: Callable[[], None] = lambda: None) -> Leave:
    """What an exit stack calls at its end: ``close``, or ``abandon`` where the GPU is lost."""

    def leave(kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None) -> bool:
        (abandon if is_lost(err) else close)()
        return False

    return leave
