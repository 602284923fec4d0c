"""Asking NVIDIA's driver: single values that may be missing, and why it does not answer at all.

Knows nothing of what the values mean; :mod:`engine.hardware.gpu` puts them together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pynvml

T = TypeVar("T")


def sensor(query: Callable[..., T], *args: Any) -> T | None:
    """A value of the driver, None where it has none."""
    try:
        return query(*args)
    except (pynvml.NVMLError, UnicodeDecodeError):
        # Not supported, no permission, GPU lost, a function too new for the driver: there is no value to show.
        return None


def words(query: Callable[..., Any], *args: Any) -> str:
    """A name or a number as text, empty where there is none; names arrive as str or bytes, by the library's age."""
    value = sensor(query, *args)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def thousandth(query: Callable[..., Any], *args: Any) -> float | None:
    """A value in thousandths (milliwatts) as whole units."""
    value = sensor(query, *args)
    return None if value is None else value / 1000


def cuda_version() -> tuple[int, int] | None:
    """The newest CUDA that the driver can run, (13, 0)."""
    number = sensor(pynvml.nvmlSystemGetCudaDriverVersion)
    return None if not number else (number // 1000, number % 1000 // 10)


def slices_of(handle: Any) -> Iterator[Any]:
    """Handles of the MIG slices that a GPU is cut into, instances without a handle left out."""
    for number in range(sensor(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        found = sensor(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
        if found is not None:
            yield found


def in_slices(handle: Any) -> bool:
    """Whether MIG mode is on: CUDA then sees the GPU's slices alone."""
    mode = sensor(pynvml.nvmlDeviceGetMigMode, handle)
    return mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE


def processes_on(handle: Any) -> dict[int, tuple[int | None, bool]]:
    """Processes with memory on a GPU by number: bytes where the driver tells, and whether they draw."""
    found: dict[int, tuple[int | None, bool]] = {}
    for draws, query in (
        (False, pynvml.nvmlDeviceGetComputeRunningProcesses),
        (True, pynvml.nvmlDeviceGetGraphicsRunningProcesses),
    ):
        for process in sensor(query, handle) or []:
            used = process.usedGpuMemory
            before = found.get(process.pid, (None, False))
            found[process.pid] = (before[0] if used is None else used, draws or before[1])
    return found


def process_name(pid: int, proc: Path = Path("/proc")) -> str:
    """A process's program: as the system has it, else as the driver knows it; empty where neither tells."""
    try:
        return (proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return os.path.basename(words(pynvml.nvmlSystemGetProcessName, pid))


def why(err: pynvml.NVMLError) -> str:
    """Why the driver does not answer, and what to do about it."""
    if isinstance(err, pynvml.NVMLError_LibraryNotFound):
        return "No NVIDIA driver is installed (its library libnvidia-ml was not found)."
    if isinstance(err, pynvml.NVMLError_DriverNotLoaded):
        return "The NVIDIA driver is installed but not loaded; restart the machine or load its kernel module."
    if isinstance(err, pynvml.NVMLError_LibRmVersionMismatch):
        return "The NVIDIA driver was updated under the running kernel module; restart the machine."
    if isinstance(err, pynvml.NVMLError_NoPermission):
        return "The NVIDIA driver refuses access to this user."
    return f"The NVIDIA driver does not answer: {err}"
