"""Machines for a forecast: the real one, described ones, and the choice among several GPUs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.hardware.gpu import Gpu, GpuProcess, Link
from profiles import machine
from profiles.machine import gpu_choices, imagined_machine, read_machine


def gpu(index: int, name: str, total_gb: float, capability: tuple[int, int] = (8, 6), **more: object) -> Gpu:
    """An idle GPU as its driver would tell of it."""
    plain = Gpu(index, f"GPU-{index}", name, total_gb, 0.3, total_gb - 0.3, (), capability, "580.65", 40, 30, 0)
    return replace(plain, **more)  # type: ignore[arg-type]


DESKTOP = gpu(
    0, "NVIDIA GeForce RTX 3070", 8.0, used_gb=1.5, free_gb=6.5, display=True,
    processes=(GpuProcess(900, 0.8, "Xorg", True), GpuProcess(901, 0.4, "fire\x1b[31mfox", True)),
)  # fmt: skip
FAST = gpu(0, "NVIDIA GeForce RTX 3080", 10.0)
ROOMY = gpu(1, "NVIDIA GeForce RTX 3060", 12.0)
OLD = gpu(2, "NVIDIA GeForce GTX 1080 Ti", 11.0, (6, 1))


def there_are(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu, reason: str = "") -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "probe_gpus", lambda: (list(gpus), reason))


def test_this_machine_is_read(tmp_path: Path) -> None:
    here = read_machine(tmp_path / "not" / "yet", tmp_path)
    assert 0 < here.free_ram_gb < here.ram_gb and here.cores >= 1
    assert here.one_disk and here.cache_disk_gb > 0 and here.cache_disk_gb == pytest.approx(here.runs_disk_gb, abs=1)
    assert (here.card is None) == (here.free_vram_gb == 0.0) and (here.card is not None or here.remarks)


def test_without_a_gpu_the_reason_is_a_remark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there_are(monkeypatch, reason="No NVIDIA driver is installed.")
    monkeypatch.setattr(machine, "other_graphics", lambda: ("An AMD card is here.",))
    here = read_machine(tmp_path, tmp_path)
    assert here.card is None and here.remarks[:2] == ("No NVIDIA driver is installed.", "An AMD card is here.")


def test_a_card_shared_with_a_desktop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there_are(monkeypatch, DESKTOP)
    here = read_machine(tmp_path, tmp_path)
    assert here.card is not None and here.card.name == "RTX 3070"
    assert here.free_vram_gb == 6.5
    (said,) = [remark for remark in here.remarks if "taken" in remark]
    assert "1.5 GB" in said and "Xorg 0.8 GB" in said and "\x1b" not in said


def test_what_this_process_holds_is_free_for_its_next_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there_are(monkeypatch, replace(DESKTOP, used_gb=5.0, free_gb=3.0, own_gb=3.5))
    here = read_machine(tmp_path, tmp_path)
    assert here.free_vram_gb == 6.5 and any("1.5 GB" in remark for remark in here.remarks)


def test_a_gpu_is_chosen_by_the_beginning_of_its_uuid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there_are(monkeypatch, FAST, ROOMY)
    first, second = read_machine(tmp_path, tmp_path), read_machine(tmp_path, tmp_path, "GPU-1")
    assert first.card is not None and first.card.name == "RTX 3080"
    assert second.card is not None and second.card.name == "RTX 3060"
    with pytest.raises(ConfigError) as caught:
        read_machine(tmp_path, tmp_path, "GPU-7")
    assert "RTX 3060" in caught.value.detail


def test_unusable_gpus_are_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there_are(monkeypatch, OLD)
    here = read_machine(tmp_path, tmp_path)
    assert here.card is None and "6.1" in here.remarks[0]
    there_are(monkeypatch, OLD, FAST)
    assert 'training.device = "cuda:1", the RTX 3080' in read_machine(tmp_path, tmp_path).remarks[0]
    there_are(monkeypatch, FAST)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" in read_machine(tmp_path, tmp_path).remarks[0]


def test_turing_and_strangers_are_remarked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there_are(monkeypatch, gpu(0, "Tesla T4", 15.0, (7, 5)))
    assert any("float32" in remark for remark in read_machine(tmp_path, tmp_path).remarks)
    there_are(monkeypatch, gpu(0, "NVIDIA \x1b]0;x\x07", 15.0, (8, 9)))
    (said,) = [remark for remark in read_machine(tmp_path, tmp_path).remarks if "guess" in remark]
    assert "\x1b" not in said


def test_of_two_unequal_gpus_the_faster_wins_unless_it_is_much_smaller() -> None:
    fast, roomy, old = gpu_choices([FAST, ROOMY, OLD], visible="0,1,2")
    assert (fast.best, roomy.best, old.best) == (True, False, False)
    assert [choice.usable for choice in (fast, roomy, old)] == [True, True, False]
    assert [choice.device for choice in (fast, roomy, old)] == ["cuda:0", "cuda:1", "cuda:2"]
    assert "9.7 of 10.0 GB free" in fast.why and "2.3 times slower than the RTX 3080" in roomy.why
    assert old.why.startswith("Too old")
    small, large = gpu_choices([DESKTOP, gpu(1, "NVIDIA GeForce RTX 3090", 24.0)], visible="0,1")
    assert large.best and not small.best and "desktop" in small.why and "Xorg" in small.why


def test_hidden_busy_and_badly_linked_gpus() -> None:
    busy = replace(
        ROOMY, used_gb=9.0, free_gb=3.0, processes=(GpuProcess(7, 8.7, "python"), GpuProcess(8, None, "ollama"))
    )
    narrow = gpu(2, "NVIDIA GeForce RTX 3060", 12.0, link=Link(1, 3, 4, 4, 16))
    hidden, first, second = gpu_choices([FAST, busy, narrow], visible="1,2")
    assert hidden.device == "" and not hidden.usable and "CUDA_VISIBLE_DEVICES" in hidden.why
    assert first.device == "cuda:0" and "9.0 GB taken by python 8.7 GB, ollama" in first.why and not first.best
    assert second.best and second.device == "cuda:1"
    linked, well = gpu_choices([narrow, replace(ROOMY, link=Link(1, 4, 4, 16, 16))], visible="2,1")
    assert well.best and "slower link, 3 GB/s" in linked.why  # equal in all else
    assert gpu_choices([]) == ()
    nameless = [replace(each, uuid="") for each in (FAST, ROOMY)]  # a driver that tells no names apart
    assert [choice.device for choice in gpu_choices(nameless, visible="0,1")] == ["cuda:0", "cuda:1"]
    assert [choice.card.name for choice in gpu_choices(nameless, visible="0,1")] == ["RTX 3080", "RTX 3060"]


def test_mig_without_slices_and_with_two() -> None:
    bare = gpu(0, "NVIDIA A100-SXM4-40GB", 40.0, (8, 0), mig=True)
    assert "no slices" in gpu_choices([bare], visible="0")[0].why
    slices = [
        gpu(0, f"NVIDIA A100-SXM4-40GB MIG {each}", 9.8, (8, 0), mig=True, slice=each, uuid=f"MIG-{number}")
        for number, each in enumerate(("2g.10gb", "1g.10gb"))
    ]
    first, second = gpu_choices(slices, visible="0")
    assert first.best and first.device == "cuda:0" and not second.usable and "one MIG slice" in second.why
    assert [choice.usable for choice in gpu_choices(slices, visible="MIG-1")] == [False, True]


def test_a_described_machine() -> None:
    here = imagined_machine(12, 32, "RTX 3060")
    assert here.card is not None and (here.card.name, here.card.vram_gb) == ("RTX 3060", 12)
    assert here.free_vram_gb == 11.5 and here.free_ram_gb == 29 and here.remarks == ()
    by_name = imagined_machine(gpu_name="4060 ti")
    assert by_name.ram_gb == 32 and "16 GB too" in by_name.remarks[0] and "assumed" in by_name.remarks[1]
    by_memory = imagined_machine(24, 64)
    assert by_memory.card is not None and by_memory.card.vram_gb == 24 and "RTX 3090" in by_memory.remarks[0]
    odd = imagined_machine(20, 64, "3080")
    assert odd.card is not None and odd.card.vram_gb == 20 and "as asked" in odd.remarks[0]
    boxed = imagined_machine(24, 64, "A10")
    assert boxed.card is not None and boxed.card.vram_gb == 22.5 and boxed.remarks == ()


def test_a_machine_that_cannot_be_described() -> None:
    with pytest.raises(ConfigError, match="No card is described"):
        imagined_machine()
    with pytest.raises(ConfigError) as caught:
        imagined_machine(12, 32, "RTX 3065")
    assert "RTX 3060" in caught.value.hint
    with pytest.raises(ConfigError, match="More than one"):
        imagined_machine(80, 128, "A100")
