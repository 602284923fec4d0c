"""What the GPUs are and how busy they are, read from the driver (NVML), without torch.

Every sensor may be missing (laptops, MIG slices, virtual GPUs, unified memory): its field is None then. No GPU, no
driver library or a broken driver is an ordinary answer too: no GPUs, and the reason in words.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import pynvml

from engine.hardware.nvml import (
    cuda_version,
    in_slices,
    process_name,
    processes_on,
    sensor,
    slices_of,
    thousandth,
    why,
    words,
)

GIB = 2**30


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory on a GPU; ``used_gb`` is None where the driver does not tell (containers).

    Attributes:
        name: its program; empty where neither driver nor system tells.
        draws: it draws on a screen, or would: a desktop, a browser.
    """

    pid: int
    used_gb: float | None
    name: str = ""
    draws: bool = False


@dataclass(frozen=True)
class Link:
    """A GPU's PCIe link; None where the driver does not tell.

    Attributes:
        generation: now; an idle card lowers it to save power, so it says little.
        most_generation: what card and board reach together under load; ``card_generation`` is the card's own.
        width: lanes in use now, ``most_width`` the card's own, or what its slot is wired for where the driver knows.
    """

    generation: int | None = None
    most_generation: int | None = None
    card_generation: int | None = None
    width: int | None = None
    most_width: int | None = None


@dataclass(frozen=True)
class Gpu:
    """One GPU, or a slice of one, now. Memory in GiB; None where there is no such sensor."""

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
    own_gb: float | None = None
    """What this process holds of it."""
    cuda: tuple[int, int] | None = None
    """The newest CUDA that the driver can run."""
    link: Link = Link()
    limit_watts: float | None = None
    """The power limit in force; ``default_watts`` is the one it came with."""
    default_watts: float | None = None
    display: bool | None = None
    """Whether a screen is attached, or a desktop drawn on it."""
    mig: bool = False
    """MIG mode is on: CUDA sees slices only. True of each slice, and of a GPU that has none yet."""
    slice: str = ""
    """Of a MIG slice: its profile, "3g.20gb"."""

    @property
    def shared(self) -> bool:
        """Whether a desktop lives on it: a screen, or programs that draw."""
        return bool(self.display) or any(process.draws for process in self.processes)


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
            self.reason = why(err)

    def read(self, load_only: bool = False) -> list[Gpu]:
        """All GPUs now; an empty list with a reason where there are none or the driver fails.

        Args:
            load_only: leave out link, limits, screens and processes, for who reads every second.
        """
        if not self._open:
            return []
        try:
            system = words(pynvml.nvmlSystemGetDriverVersion), cuda_version()
            gpus = [
                gpu
                for index in range(pynvml.nvmlDeviceGetCount())
                for gpu in _read_one(index, system, whole=not load_only)
            ]
        except pynvml.NVMLError as err:
            self.reason = why(err)
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
    Numbers match the driver's order when CUDA_DEVICE_ORDER is PCI_BUS_ID, as `kiln` sets it, or all GPUs are alike.
    Of MIG slices a process sees one alone, and no whole GPU beside it.
    """
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
    if wanted is None:
        return _at_most_one_slice(gpus)
    chosen: list[Gpu] = []
    for entry in (part.strip() for part in wanted.split(",")):
        found = [gpu for gpu in gpus if entry and (str(gpu.index) == entry or gpu.uuid.startswith(entry))]
        if not found or any(gpu.index != found[0].index for gpu in found):
            break
        chosen.append(found[0])
    return _at_most_one_slice(chosen)


def _at_most_one_slice(gpus: Sequence[Gpu]) -> list[Gpu]:
    first = next((gpu for gpu in gpus if gpu.slice), None)
    return list(gpus) if first is None else [first]


def _read_one(index: int, system: tuple[str, tuple[int, int] | None], whole: bool) -> list[Gpu]:
    """One GPU, or its slices; nothing where it fell off the bus or is another user's."""
    handle = sensor(pynvml.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        return []
    mig = in_slices(handle)
    slices = list(slices_of(handle)) if mig else []
    return [_read(each, handle, index, system, mig, whole) for each in slices or [handle]]


def _read(
    handle: Any, card: Any, index: int, system: tuple[str, tuple[int, int] | None], mig: bool, whole: bool
) -> Gpu:
    """The values of a GPU (``handle`` is ``card``) or of a slice of it, which has few sensors of its own."""
    memory = sensor(pynvml.nvmlDeviceGetMemoryInfo, handle)
    load = sensor(pynvml.nvmlDeviceGetUtilizationRates, handle)
    name = words(pynvml.nvmlDeviceGetName, handle) or words(pynvml.nvmlDeviceGetName, card) or f"GPU {index}"
    others, own_gb = _processes(handle) if whole else ((), None)
    return Gpu(
        index=index,
        uuid=words(pynvml.nvmlDeviceGetUUID, handle),
        name=name,
        total_gb=None if memory is None else memory.total / GIB,
        used_gb=None if memory is None else memory.used / GIB,
        free_gb=None if memory is None else memory.free / GIB,
        processes=others,
        compute_capability=sensor(pynvml.nvmlDeviceGetCudaComputeCapability, card),
        driver=system[0],
        celsius=sensor(pynvml.nvmlDeviceGetTemperature, card, pynvml.NVML_TEMPERATURE_GPU),
        watts=thousandth(pynvml.nvmlDeviceGetPowerUsage, card),
        percent=None if load is None else float(load.gpu),
        own_gb=own_gb,
        cuda=system[1],
        link=_link(card) if whole else Link(),
        limit_watts=thousandth(pynvml.nvmlDeviceGetEnforcedPowerLimit, card) if whole else None,
        default_watts=thousandth(pynvml.nvmlDeviceGetPowerManagementDefaultLimit, card) if whole else None,
        display=_display(card) if whole else None,
        mig=mig,
        slice=_profile(name, memory) if mig and handle is not card else "",
    )


def _profile(name: str, memory: Any) -> str:
    """A slice's profile, which drivers write at the end of its name; else its memory."""
    found = re.search(r"\b\d+c?\.?\d*g\.\d+gb\S*", name)
    return found.group() if found else f"{0 if memory is None else memory.total // GIB}gb"


def _link(card: Any) -> Link:
    return Link(
        generation=sensor(pynvml.nvmlDeviceGetCurrPcieLinkGeneration, card),
        most_generation=sensor(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, card),
        card_generation=sensor(pynvml.nvmlDeviceGetGpuMaxPcieLinkGeneration, card),
        width=sensor(pynvml.nvmlDeviceGetCurrPcieLinkWidth, card),
        most_width=sensor(pynvml.nvmlDeviceGetMaxPcieLinkWidth, card),
    )


def _display(card: Any) -> bool | None:
    told = [sensor(query, card) for query in (pynvml.nvmlDeviceGetDisplayMode, pynvml.nvmlDeviceGetDisplayActive)]
    known = [bool(value) for value in told if value is not None]
    return any(known) if known else None


def _processes(handle: Any) -> tuple[tuple[GpuProcess, ...], float | None]:
    """Other processes on a GPU, each once, and what this one holds of it."""
    found = processes_on(handle)
    own, _ = found.pop(os.getpid(), (None, False))
    others = tuple(
        GpuProcess(pid, None if used is None else used / GIB, process_name(pid), draws)
        for pid, (used, draws) in sorted(found.items())
    )
    return others, None if own is None else own / GIB
