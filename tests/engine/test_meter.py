"""The meter: storages counted once, a step split into its parts, copies and waits added up."""

import pytest
import torch
from torch import nn

from engine.events import MemoryHeld
from engine.memory.meter import MemoryMeter, Spent, Traffic, begin_peak, held_bytes, peak_bytes

CPU = torch.device("cpu")


def test_a_storage_counts_once_however_many_views_there_are():
    flat = torch.zeros(1000)
    views = [flat[:10], flat[500:].view(50, 10), flat]
    assert held_bytes(views, CPU) == 4000
    counted: set[int] = set()
    assert held_bytes([flat], CPU, counted) == 4000
    assert held_bytes([flat[3:]], CPU, counted) == 0


def test_tensors_elsewhere_do_not_count():
    assert held_bytes([torch.zeros(10, device="meta"), torch.zeros(10)], CPU) == 40


def measured(layers: nn.Sequential, x: torch.Tensor, interval_s: float = 0.0) -> MemoryHeld | None:
    weights = [parameter for parameter in layers.parameters()]
    meter = MemoryMeter(CPU, lambda: weights, lambda: [p.grad for p in weights if p.grad is not None], interval_s)
    meter.begin()
    with meter.forward():
        loss = layers(x).square().sum()
    loss.backward()
    return meter.end()


def test_a_step_is_split_into_its_parts():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 256))
    held = measured(layers, torch.randn(4096, 256))
    assert held is not None
    parameters = (256 * 512 + 512 + 512 * 256 + 256) * 4
    assert held.weights_gb == round(parameters / 2**30, 4) == held.adapters_gb
    # Kept: the input, the first linear's output, gelu's output, the last output.
    kept = 4096 * (256 + 512 + 512 + 256) * 4
    assert held.checkpoints_gb == round(kept / 2**30, 4)
    assert held.peak_gb >= held.other_gb > 0 and held.working_gb == 0


def test_the_numbers_of_a_step_do_not_change_by_being_measured():
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))

    def gradients(measure: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
        meter = MemoryMeter(CPU, layers.parameters, lambda: ())
        if measure:
            meter.begin()
        with meter.forward():
            loss = layers(x).square().sum()
        loss.backward()
        assert (meter.end() is not None) == measure
        return [parameter.grad for parameter in layers.parameters()]

    for plain, watched in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(plain, watched)


def test_steps_in_quick_succession_are_measured_once():
    meter = MemoryMeter(CPU, lambda: (), lambda: (), interval_s=3600)
    told = []
    for _ in range(3):
        meter.begin()
        with meter.forward():
            pass
        told.append(meter.end())
    assert told[0] is not None and told[1:] == [None, None]


def test_traffic_adds_up_copies_and_waits_of_one_step():
    traffic = Traffic(CPU)
    traffic.moved(3_000_000)
    with traffic.wait():
        traffic.moved(1_000_000)
    spent = traffic.take()
    assert spent.moved_mb() == 4.0 and len(spent.waits) == 1 and spent.stall_s() >= 0
    assert traffic.take() == Spent()
    assert Spent(waits=((1.0, 1.5), (2.0, 2.25))).stall_s() == 0.75


def test_a_cpu_has_no_allocator_to_ask():
    assert peak_bytes(CPU) == 0


def test_a_run_does_not_inherit_the_peak_of_an_earlier_one(monkeypatch: pytest.MonkeyPatch):
    gpu = torch.device("cuda", 0)
    counter = {"peak": 9 * 2**30}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: counter["peak"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: counter.update(peak=100))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    MemoryMeter(gpu, list, list).begin()
    assert peak_bytes(gpu) == 9 * 2**30  # a measured step resets torch's counter, not the run's
    begin_peak(gpu)
    assert peak_bytes(gpu) == 100
