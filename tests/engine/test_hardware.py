"""GPUs and memory: any sensor may be missing, any driver broken, and the sampler stops when told."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from engine.events import EventLog, MemorySampled
from engine.hardware.gpu import GIB, GpuReader, probe_gpus, read_gpus, visible_gpus
from engine.hardware.monitor import MemorySampler, container_limit, host_memory

SENSORS = (
    "nvmlDeviceGetName",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlSystemGetDriverVersion",
)


def _error(code: int) -> pynvml.NVMLError:
    return pynvml.NVMLError(code)


def _raise(code: int) -> Any:
    def call(*_args: object) -> None:
        raise _error(code)

    return call


class Driver:
    """A stand-in for the NVIDIA driver with ``count`` GPUs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int = 1) -> None:
        self.patch = monkeypatch
        self.opened = 0
        processes = [
            SimpleNamespace(pid=os.getpid(), usedGpuMemory=5 * GIB),
            SimpleNamespace(pid=4321, usedGpuMemory=2 * GIB),
            SimpleNamespace(pid=77, usedGpuMemory=None),
        ]
        memory = SimpleNamespace(total=24 * GIB, used=6 * GIB, free=18 * GIB)
        self.set("nvmlInit", lambda: setattr(self, "opened", self.opened + 1))
        self.set("nvmlShutdown", lambda: setattr(self, "opened", self.opened - 1))
        self.set("nvmlDeviceGetCount", lambda: count)
        self.set("nvmlDeviceGetHandleByIndex", lambda index: index)
        self.set("nvmlDeviceGetName", lambda handle: "NVIDIA GeForce RTX 4090")
        self.set("nvmlDeviceGetUUID", lambda handle: f"GPU-{handle}a".encode())
        self.set("nvmlDeviceGetMemoryInfo", lambda handle: memory)
        self.set("nvmlDeviceGetUtilizationRates", lambda handle: SimpleNamespace(gpu=93, memory=40))
        self.set("nvmlDeviceGetPowerUsage", lambda handle: 312_500)
        self.set("nvmlDeviceGetTemperature", lambda handle, sensor: 67)
        self.set("nvmlDeviceGetCudaComputeCapability", lambda handle: (8, 9))
        self.set("nvmlDeviceGetComputeRunningProcesses", lambda handle: processes)
        self.set("nvmlDeviceGetGraphicsRunningProcesses", lambda handle: processes[1:2])
        self.set("nvmlSystemGetDriverVersion", lambda: "580.65")

    def set(self, name: str, call: Any) -> None:
        self.patch.setattr(pynvml, name, call)


def test_a_whole_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(monkeypatch)
    gpus, reason = probe_gpus()
    assert reason == ""
    (gpu,) = gpus
    assert (gpu.index, gpu.uuid, gpu.name, gpu.driver) == (0, "GPU-0a", "NVIDIA GeForce RTX 4090", "580.65")
    assert (gpu.total_gb, gpu.used_gb, gpu.free_gb) == (24.0, 6.0, 18.0)
    assert (gpu.celsius, gpu.watts, gpu.percent) == (67, 312.5, 93.0)
    assert gpu.compute_capability == (8, 9)
    assert [(process.pid, process.used_gb) for process in gpu.processes] == [(77, None), (4321, 2.0)]
    assert driver.opened == 0


@pytest.mark.parametrize("sensor", SENSORS)
@pytest.mark.parametrize(
    "code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND]
)
def test_any_sensor_may_be_missing(monkeypatch: pytest.MonkeyPatch, sensor: str, code: int) -> None:
    Driver(monkeypatch).set(sensor, _raise(code))
    (gpu,) = read_gpus()
    assert gpu.name


def test_no_sensor_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(monkeypatch)
    for sensor in SENSORS:
        driver.set(sensor, _raise(pynvml.NVML_ERROR_NOT_SUPPORTED))
    (gpu,) = read_gpus()
    assert gpu.name == "GPU 0"
    assert gpu.processes == ()
    values = (gpu.total_gb, gpu.free_gb, gpu.celsius, gpu.watts, gpu.percent, gpu.compute_capability)
    assert values == (None,) * 6


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "No NVIDIA driver"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "not loaded"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "restart"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "refuses"),
        (pynvml.NVML_ERROR_UNKNOWN, "does not answer"),
    ],
)
def test_a_driver_that_is_absent_or_broken(monkeypatch: pytest.MonkeyPatch, code: int, words: str) -> None:
    driver = Driver(monkeypatch)
    driver.set("nvmlInit", _raise(code))
    gpus, reason = probe_gpus()
    assert gpus == []
    assert words in reason
    Driver(monkeypatch).set("nvmlDeviceGetCount", _raise(code))
    gpus, reason = probe_gpus()
    assert gpus == []
    assert words in reason


def test_no_gpu_behind_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver(monkeypatch, count=0)
    gpus, reason = probe_gpus()
    assert gpus == []
    assert "no GPU" in reason


def test_a_lost_gpu_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(monkeypatch, count=3)

    def handle(index: int) -> int:
        if index == 1:
            raise _error(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    driver.set("nvmlDeviceGetHandleByIndex", handle)
    assert [gpu.index for gpu in read_gpus()] == [0, 2]


def test_a_reader_is_opened_once_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(monkeypatch)
    reader = GpuReader()
    assert len(reader.read()) == len(reader.read()) == 1
    assert driver.opened == 1
    reader.close()
    reader.close()
    assert driver.opened == 0
    assert reader.read() == []


def test_this_machine_answers() -> None:
    gpus, reason = probe_gpus()
    assert bool(gpus) != bool(reason)


def test_visible_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver(monkeypatch, count=3)
    gpus = read_gpus()

    def seen(visible: str) -> list[int]:
        return [gpu.index for gpu in visible_gpus(gpus, visible)]

    assert seen("2,0") == [2, 0]
    assert seen("GPU-1") == [1]
    assert seen("") == seen("-1") == seen("GPU-") == []
    assert seen("1,7,0") == [1]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert len(visible_gpus(gpus)) == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.index for gpu in visible_gpus(gpus)] == [1]


def test_host_memory_is_plausible() -> None:
    used, total, process = host_memory()
    assert 0 < process < used < total
    assert total == pytest.approx(psutil.virtual_memory().total / 2**30)


def _samples(events: EventLog) -> list[MemorySampled]:
    return [entry.event for entry in events.since(0) if isinstance(entry.event, MemorySampled)]


def test_the_sampler_samples_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(monkeypatch, count=2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    events = EventLog()
    sampler = MemorySampler(events, interval_s=0.01, peak=lambda: 7.5)
    sampler.start()
    deadline = time.monotonic() + 5
    while len(_samples(events)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    sampler.stop()
    sampler.stop()
    seen = len(_samples(events))
    assert seen >= 3
    time.sleep(0.05)
    assert len(_samples(events)) == seen
    assert driver.opened == 0
    last = _samples(events)[-1]
    assert (last.vram_used_gb, last.vram_total_gb, last.vram_peak_gb) == (6.0, 24.0, 7.5)
    assert (last.gpu_percent, last.gpu_celsius, last.gpu_watts) == (93.0, 67.0, 312.5)
    assert last.host_total_gb > last.process_gb > 0


def test_the_sampler_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver(monkeypatch).set("nvmlInit", _raise(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    events = EventLog()
    with MemorySampler(events, interval_s=60):
        deadline = time.monotonic() + 5
        while not _samples(events) and time.monotonic() < deadline:
            time.sleep(0.01)
    (sample,) = _samples(events)
    assert sample.host_used_gb > 0
    assert (sample.vram_total_gb, sample.vram_peak_gb) == (0.0, 0.0)
    assert not [thread for thread in threading.enumerate() if thread.name == "memory-sampler"]


def test_the_sampler_follows_the_gpu_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(monkeypatch, count=2)
    driver.set("nvmlDeviceGetTemperature", lambda handle, sensor: 40 + handle)
    events = EventLog()
    with MemorySampler(events, interval_s=60, uuid="GPU-1"):
        deadline = time.monotonic() + 5
        while not _samples(events) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert _samples(events)[0].gpu_celsius == 41.0


def test_a_sampler_never_started_stops() -> None:
    MemorySampler(EventLog()).stop()


def test_hardware_is_read_without_torch() -> None:
    code = "import sys, engine.hardware.gpu, engine.hardware.monitor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_containers_limit_is_read(tmp_path: Path) -> None:
    assert container_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("500\n")
    (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 150\n")
    assert container_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert container_limit(tmp_path) == (350, 1000)
