"""GPUs and memory: any sensor may be missing, any driver broken, and the sampler stops when told."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from engine.events import EventLog, MemorySampled
from engine.hardware.cards import card_of
from engine.hardware.gpu import GIB, Gpu, GpuReader, Link, probe_gpus, read_gpus, visible_gpus
from engine.hardware.host import (
    container_limit,
    control_groups,
    free_disk_gb,
    host_memory,
    on_one_disk,
    read_memory,
    standing_parent,
    usable_cores,
)
from engine.hardware.monitor import MemorySampler, Told
from engine.hardware.nvml import process_name
from engine.hardware.others import APPLE, nvidia_on_bus, other_graphics

PATIENCE_S = 60.0
"""A loaded machine gives a thread its turn late."""

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
    "nvmlSystemGetCudaDriverVersion",
    "nvmlSystemGetProcessName",
    "nvmlDeviceGetCurrPcieLinkGeneration",
    "nvmlDeviceGetMaxPcieLinkGeneration",
    "nvmlDeviceGetGpuMaxPcieLinkGeneration",
    "nvmlDeviceGetCurrPcieLinkWidth",
    "nvmlDeviceGetMaxPcieLinkWidth",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetPowerManagementDefaultLimit",
    "nvmlDeviceGetDisplayMode",
    "nvmlDeviceGetDisplayActive",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
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
        self.set("nvmlSystemGetCudaDriverVersion", lambda: 13010)
        self.set("nvmlSystemGetProcessName", lambda pid: f"/usr/bin/program{pid}".encode())
        for name, value in (("Curr", 1), ("Max", 4), ("GpuMax", 5)):
            self.set(f"nvmlDeviceGet{name}PcieLinkGeneration", lambda handle, value=value: value)
        self.set("nvmlDeviceGetCurrPcieLinkWidth", lambda handle: 8)
        self.set("nvmlDeviceGetMaxPcieLinkWidth", lambda handle: 16)
        self.set("nvmlDeviceGetEnforcedPowerLimit", lambda handle: 350_000)
        self.set("nvmlDeviceGetPowerManagementDefaultLimit", lambda handle: 450_000)
        self.set("nvmlDeviceGetDisplayMode", lambda handle: 0)
        self.set("nvmlDeviceGetDisplayActive", lambda handle: 0)
        self.set("nvmlDeviceGetMigMode", _raise(pynvml.NVML_ERROR_NOT_SUPPORTED))
        self.set("nvmlDeviceGetMaxMigDeviceCount", lambda handle: 0)
        self.set("nvmlDeviceGetMigDeviceHandleByIndex", _raise(pynvml.NVML_ERROR_NOT_FOUND))

    def cut(self, *profiles: str) -> None:
        """Switch MIG mode on for GPU 0, an A100, with a slice a profile; others stay whole."""
        self.set("nvmlDeviceGetMigMode", lambda handle: (1, 1) if handle == 0 else (0, 0))
        self.set("nvmlDeviceGetMaxMigDeviceCount", lambda handle: 7)
        self.set(
            "nvmlDeviceGetMigDeviceHandleByIndex",
            lambda handle, number: 100 + number if number < len(profiles) else _raise(pynvml.NVML_ERROR_NOT_FOUND)(),
        )
        whole = "NVIDIA A100-SXM4-40GB"
        self.set(
            "nvmlDeviceGetName", lambda handle: f"{whole} MIG {profiles[handle - 100]}" if handle >= 100 else whole
        )
        self.set("nvmlDeviceGetUUID", lambda handle: f"MIG-{handle}" if handle >= 100 else f"GPU-{handle}a")

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
    assert (gpu.own_gb, gpu.cuda, gpu.limit_watts, gpu.default_watts) == (5.0, (13, 1), 350.0, 450.0)
    assert gpu.link == Link(generation=1, most_generation=4, card_generation=5, width=8, most_width=16)
    assert (gpu.mig, gpu.slice, gpu.display) == (False, "", False)
    assert driver.opened == 0


@pytest.mark.parametrize("sensor", SENSORS)
@pytest.mark.parametrize(
    "code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND]
)
def test_any_sensor_may_be_missing(monkeypatch: pytest.MonkeyPatch, sensor: str, code: int) -> None:
    Driver(monkeypatch).set(sensor, _raise(code))
    (gpu,) = read_gpus()
    assert gpu.name
    assert card_of(gpu).vram_gb == 24


def test_a_card_with_a_desktop_names_who_draws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver = Driver(monkeypatch)
    driver.set("nvmlDeviceGetDisplayActive", lambda handle: 1)
    (gpu,) = read_gpus()
    assert gpu.shared and gpu.display
    first, second = gpu.processes
    assert (first.draws, second.draws) == (False, True)
    (tmp_path / "4321").mkdir()
    (tmp_path / "4321" / "comm").write_text("Xorg\n")
    assert process_name(4321, tmp_path) == "Xorg"
    assert process_name(77, tmp_path) == "program77"  # the system does not tell, the driver does
    driver.set("nvmlSystemGetProcessName", _raise(pynvml.NVML_ERROR_NOT_FOUND))
    assert process_name(77, tmp_path) == ""
    driver.set("nvmlDeviceGetDisplayActive", _raise(pynvml.NVML_ERROR_NOT_SUPPORTED))
    driver.set("nvmlDeviceGetGraphicsRunningProcesses", lambda handle: [])
    (gpu,) = read_gpus()
    assert gpu.display is False and not gpu.shared


def test_two_unequal_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(monkeypatch, count=2)
    names = {0: "NVIDIA GeForce RTX 3060", 1: "NVIDIA GeForce RTX 5090"}
    driver.set("nvmlDeviceGetName", names.__getitem__)
    memory = {0: SimpleNamespace(total=8 * GIB, used=GIB, free=7 * GIB)}
    memory[1] = SimpleNamespace(total=32 * GIB, used=GIB, free=31 * GIB)
    driver.set("nvmlDeviceGetMemoryInfo", memory.__getitem__)
    assert [(card.name, card.vram_gb, card.rates.bandwidth) for card in map(card_of, read_gpus())] == [
        ("RTX 3060", 8.0, 240), ("RTX 5090", 32.0, 1792),
    ]  # fmt: skip


def test_slices_stand_in_place_of_their_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver(monkeypatch, count=2).cut("3g.20gb", "1c.2g.10gb")
    gpus = read_gpus()
    assert [(gpu.index, gpu.uuid, gpu.slice, gpu.mig) for gpu in gpus] == [
        (0, "MIG-100", "3g.20gb", True), (0, "MIG-101", "1c.2g.10gb", True), (1, "GPU-1a", "", False),
    ]  # fmt: skip
    assert card_of(gpus[0]).rates.bf16 == pytest.approx(312 * 3 / 7)
    assert [gpu.uuid for gpu in visible_gpus(gpus, "MIG-101")] == ["MIG-101"]
    assert [gpu.uuid for gpu in visible_gpus(gpus, "0,1")] == ["MIG-100"]  # of slices CUDA sees one, and nothing else
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [gpu.uuid for gpu in visible_gpus(gpus)] == ["MIG-100"]


def test_mig_mode_without_slices_leaves_a_gpu_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver(monkeypatch).cut()
    (gpu,) = read_gpus()
    assert gpu.mig and gpu.slice == ""


def test_who_reads_every_second_asks_for_the_load_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(monkeypatch)
    asked: list[int] = []
    driver.set("nvmlDeviceGetComputeRunningProcesses", asked.append)
    with GpuReader() as reader:
        (gpu,) = reader.read(load_only=True)
    assert (gpu.used_gb, gpu.percent, gpu.watts, gpu.celsius) == (6.0, 93.0, 312.5, 67)
    assert gpu.link == Link() and gpu.processes == () and not asked


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
    sampler = MemorySampler(events, interval_s=0.01, peak=lambda: 7.5, told_every_s=0)
    sampler.start()
    deadline = time.monotonic() + PATIENCE_S
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


def test_what_does_not_change_is_told_now_and_then() -> None:
    """The first look, those after a while, and those at which memory is not as it was told."""
    steady = MemorySampled(8.0, 64.0, 4.0, 20.0, 24.0, 18.5, 98.0, 68.0, 320.0)
    course = [replace(steady, gpu_watts=320.0 + second) for second in range(40)]
    course[10:] = [replace(sample, vram_used_gb=20.2) for sample in course[10:]]
    course[12] = replace(course[12], host_used_gb=8.5)  # of 64
    told = Told(15.0)
    assert [second for second in range(40) if told.is_due(course[second], float(second))] == [0, 10, 25]
    for change in ({"host_used_gb": 8.7}, {"process_gb": 3.9}, {"vram_used_gb": 19.8}, {"vram_peak_gb": 18.7}):
        told = Told(15.0)
        assert told.is_due(steady, 0.0) and told.is_due(replace(steady, **change), 1.0)


def test_the_last_look_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver(monkeypatch).set("nvmlInit", _raise(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    looks = [MemorySampled(8.0 + number / 1000, 64.0, 4.0) for number in range(5)]
    events, coming = EventLog(), iter(looks)
    sampler = MemorySampler(events, interval_s=0, told_every_s=600)

    def look(gpus: list[Gpu]) -> MemorySampled:
        found = next(coming)
        if found is looks[-1]:
            sampler.stop()
        return found

    monkeypatch.setattr(sampler, "_sample", look)
    sampler._run()
    assert _samples(events) == [looks[0], looks[-1]]


def test_the_sampler_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver(monkeypatch).set("nvmlInit", _raise(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    events = EventLog()
    before = set(threading.enumerate())
    with MemorySampler(events, interval_s=600):
        deadline = time.monotonic() + PATIENCE_S
        while not _samples(events) and time.monotonic() < deadline:
            time.sleep(0.01)
    (sample,) = _samples(events)
    assert sample.host_used_gb > 0
    assert (sample.vram_total_gb, sample.vram_peak_gb) == (0.0, 0.0)
    assert set(threading.enumerate()) <= before  # and what another test left may end meanwhile


def test_the_sampler_follows_the_gpu_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(monkeypatch, count=2)
    driver.set("nvmlDeviceGetTemperature", lambda handle, sensor: 40 + handle)
    events = EventLog()
    with MemorySampler(events, interval_s=600, uuid="GPU-1"):
        deadline = time.monotonic() + PATIENCE_S
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


def test_free_memory_is_what_the_narrower_limit_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_memory()
    assert 0 < whole.free < whole.total and 0 <= whole.swap_free <= whole.swap
    monkeypatch.setattr("engine.hardware.host.container_limit", lambda group: (GIB // 4, GIB // 2))
    narrow = read_memory()
    assert narrow.limited and (narrow.used, narrow.total, narrow.free) == (0.25, 0.5, 0.25)
    monkeypatch.setattr("engine.hardware.host.container_limit", lambda group: (3 * GIB, 2 * GIB))
    assert read_memory().free == 0.0  # over its limit, about to be reclaimed


def test_cores_are_what_affinity_and_container_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 4, 5}, raising=False)
    monkeypatch.setattr("engine.hardware.host.control_groups", lambda: [tmp_path, tmp_path / "none"])
    assert usable_cores() == 6
    for text, cores in (("max 100000", 6), ("250000 100000", 2), ("50000 100000", 1), ("900000 100000", 6), ("x", 6)):
        (tmp_path / "cpu.max").write_text(f"{text}\n")
        assert usable_cores() == cores
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert usable_cores() == 8  # the last quota is none


def test_every_control_group_above_a_process_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "cgroup"
    assert control_groups(tmp_path, own) == [tmp_path]
    own.write_text("4:memory:/old\n0::/job_7/step_0\n")
    groups = control_groups(tmp_path, own)
    assert groups == [tmp_path / "job_7" / "step_0", tmp_path / "job_7", tmp_path]
    groups[0].mkdir(parents=True)
    (groups[1] / "memory.max").write_text(f"{GIB}\n")  # the job's limit, its step has none
    (groups[1] / "memory.current").write_text(f"{GIB // 2}\n")
    (groups[1] / "memory.stat").write_text("inactive_file 0\n")
    monkeypatch.setattr("engine.hardware.host.control_groups", lambda: groups)
    assert host_memory()[:2] == (0.5, 1.0) and read_memory().limited


def test_disks_of_folders_that_are_not_there_yet(tmp_path: Path) -> None:
    new = tmp_path / "a" / "b"
    assert standing_parent(new) == tmp_path and standing_parent(tmp_path / ("x" * 300)) == tmp_path
    (tmp_path / "file").write_text("")
    assert standing_parent(tmp_path / "file" / "runs") == tmp_path
    free = free_disk_gb(new)
    assert free is not None and free > 0
    assert on_one_disk(new, tmp_path / "c")
    assert not on_one_disk(new, Path("/proc"))


def test_graphics_of_other_makers_are_said_to_be_limited(tmp_path: Path) -> None:
    assert other_graphics(tmp_path, "Linux", "x86_64") == ()
    for number, vendor in enumerate(("0x1002", "0x8086", "0x10de", "0x1002")):
        (tmp_path / f"card{number}" / "device").mkdir(parents=True)
        (tmp_path / f"card{number}" / "device" / "vendor").write_text(f"{vendor}\n")
        (tmp_path / f"card{number}-DP-1").mkdir()
    amd, intel = other_graphics(tmp_path, "Linux", "x86_64")
    assert "AMD" in amd and "ROCm" in amd and "Intel" in intel
    for number, (vendor, kind) in enumerate((("0x10de", "0x040300"), ("0x1002", "0x030000"))):  # sound of one, AMD's
        (tmp_path / f"0{number}").mkdir()
        (tmp_path / f"0{number}" / "vendor").write_text(vendor)
        (tmp_path / f"0{number}" / "class").write_text(kind)
    assert not nvidia_on_bus(tmp_path) and not nvidia_on_bus(tmp_path / "none")
    (tmp_path / "00" / "class").write_text("0x030200\n")
    assert nvidia_on_bus(tmp_path)
    assert other_graphics(tmp_path, "Darwin", "arm64") == (APPLE,)
    assert other_graphics(tmp_path, "Darwin", "x86_64") == ()
