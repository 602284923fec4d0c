"""What the GPUs are and how busy they are, read from the driver (NVML), without torch.

Every sensor may be missing (laptops, MIG slices, virtual GPUs, unified memory): its field is None then. No GPU, no
driver library or a broken driver is an ordinary answer too: no GPUs, and the reason in words.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import pynvml

GIB = 2**30
T = TypeVar("T")


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory on a GPU; ``used_gb`` is None where the driver does not tell (containers)."""

    pid: int
    used_gb: float | None


@dataclass(frozen=True)
class Gpu:
    """One GPU now. Memory in GiB; None where there is no such sensor."""

    index: int
    """The driver's number (nvidia-smi's), in the order of the PCI bus."""
    uuid: str
    name: str
    total_gb: float | None
    used_gb: float | None
    free_gb: float | None
    processes: tuple[GpuProcess, ...]
    """Other processes than this one with memory on it."""
    compute_capability: tuple[int, int] | None
    driver: str
    celsius: float | None
    watts: float | None
    percent: float | None
    """Share of the last sample period in which a kernel ran."""


class GpuReader:
    """A connection to the driver: opened once, read often. Use it as a context manager or close it.

    ``reason`` tells why there are no GPUs, and is empty where there are some.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._open = False
        try:
            pynvml.nvmlInit()
            self._open = True
        except pynvml.NVMLError as err:
            self.reason = _why(err)

    def read(self) -> list[Gpu]:
        """All GPUs now; an empty list with a reason where there are none or the driver fails."""
        if not self._open:
            return []
        try:
            driver = _text(_sensor(pynvml.nvmlSystemGetDriverVersion))
            gpus = [gpu for index in range(pynvml.nvmlDeviceGetCount()) if (gpu := _read_one(index, driver))]
        except pynvml.NVMLError as err:
            self.reason = _why(err)
            return []
        self.reason = "" if gpus else "The NVIDIA driver runs, but no GPU answers it."
        return gpus

    def close(self) -> None:
        """Let the driver go; reading afterwards gives nothing."""
        if self._open:
            self._open = False
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()

    def __enter__(self) -> GpuReader:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        """Close."""
        self.close()


def read_gpus() -> list[Gpu]:
    """All GPUs now, none where there are none; :func:`probe_gpus` says why."""
    return probe_gpus()[0]


def probe_gpus() -> tuple[list[Gpu], str]:
    """All GPUs now, and why there are none (empty where there are some)."""
    with GpuReader() as reader:
        return reader.read(), reader.reason


def visible_gpus(gpus: Sequence[Gpu], visible: str | None = None) -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES (or ``visible``) leaves to this process, in its order.

    Numbers and beginnings of UUIDs are understood; as in CUDA, the list ends at the first entry that names none.
    Numbers match the driver's order when CUDA_DEVICE_ORDER is PCI_BUS_ID or all GPUs are alike.
    """
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
    if wanted is None:
        return list(gpus)
    chosen: list[Gpu] = []
    for entry in (part.strip() for part in wanted.split(",")):
        found = [gpu for gpu in gpus if entry and (str(gpu.index) == entry or gpu.uuid.startswith(entry))]
        if len(found) != 1:
            break
        chosen += found
    return chosen


def _read_one(index: int, driver: str) -> Gpu | None:
    """One GPU, or None where it fell off the bus or is another user's."""
    handle = _sensor(pynvml.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        return None
    memory = _sensor(pynvml.nvmlDeviceGetMemoryInfo, handle)
    load = _sensor(pynvml.nvmlDeviceGetUtilizationRates, handle)
    milliwatts = _sensor(pynvml.nvmlDeviceGetPowerUsage, handle)
    return Gpu(
        index=index,
        uuid=_text(_sensor(pynvml.nvmlDeviceGetUUID, handle)),
        name=_text(_sensor(pynvml.nvmlDeviceGetName, handle)) or f"GPU {index}",
        total_gb=None if memory is None else memory.total / GIB,
        used_gb=None if memory is None else memory.used / GIB,
        free_gb=None if memory is None else memory.free / GIB,
        processes=_processes(handle),
        compute_capability=_sensor(pynvml.nvmlDeviceGetCudaComputeCapability, handle),
        driver=driver,
        celsius=_sensor(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        watts=None if milliwatts is None else milliwatts / 1000,
        percent=None if load is None else float(load.gpu),
    )


def _processes(handle: Any) -> tuple[GpuProcess, ...]:
    """Other processes on a GPU: computing and drawing ones, each once."""
    used: dict[int, float | None] = {}
    for query in (pynvml.nvmlDeviceGetComputeRunningProcesses, pynvml.nvmlDeviceGetGraphicsRunningProcesses):
        for process in _sensor(query, handle) or []:
            if process.pid != os.getpid():
                used[process.pid] = None if process.usedGpuMemory is None else process.usedGpuMemory / GIB
    return tuple(GpuProcess(pid, gb) for pid, gb in sorted(used.items()))


def _sensor(query: Callable[..., T], *args: Any) -> T | None:
    """A value of the driver, None where it has none."""
    try:
        return query(*args)
    except (pynvml.NVMLError, UnicodeDecodeError):
        # Not supported, no permission, GPU lost, a function too new for the driver: there is no value to show.
        return None


def _text(value: object) -> str:
    """Names arrive as str or bytes, by the library's age."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def _why(err: pynvml.NVMLError) -> str:
    if isinstance(err, pynvml.NVMLError_LibraryNotFound):
        return "No NVIDIA driver is installed (its library libnvidia-ml was not found)."
    if isinstance(err, pynvml.NVMLError_DriverNotLoaded):
        return "The NVIDIA driver is installed but not loaded; restart the machine or load its kernel module."
    if isinstance(err, pynvml.NVMLError_LibRmVersionMismatch):
        return "The NVIDIA driver was updated under the running kernel module; restart the machine."
    if isinstance(err, pynvml.NVMLError_NoPermission):
        return "The NVIDIA driver refuses access to this user."
    return f"The NVIDIA driver does not answer: {err}"
