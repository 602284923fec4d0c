"""The machine as the driver tells it, against what torch sees of the same card."""

from pathlib import Path

import pytest
import torch

from engine.hardware.cards import card_of
from engine.hardware.gpu import read_gpus, visible_gpus
from engine.hardware.software import ask_software, runs_on
from profiles.machine import free_for_a_run, gpu_choices, read_machine

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_driver_and_torch_speak_of_the_same_card(tmp_path: Path) -> None:
    uuid = str(torch.cuda.get_device_properties(0).uuid)
    gpu = next(gpu for gpu in visible_gpus(read_gpus()) if gpu.uuid.endswith(uuid))
    free, total = (size / 2**30 for size in torch.cuda.mem_get_info(0))
    card = card_of(gpu)
    assert card.capability == torch.cuda.get_device_capability(0)
    assert card.vram_gb == pytest.approx(total, rel=0.03)
    assert card.link_gb_s > 1 and card.rates.wide > 1
    assert free_for_a_run(gpu) >= free - 0.5
    held = torch.ones(2**28, device="cuda")  # 1 GiB of this process's, which its next run may have
    machine = read_machine(tmp_path, tmp_path, gpu.uuid)
    if gpu.own_gb is not None:  # containers hide it
        assert machine.free_vram_gb == pytest.approx(free_for_a_run(gpu), abs=0.5)
    else:
        assert machine.free_vram_gb == pytest.approx(free - held.numel() * 4 / 2**30, abs=0.5)


def test_a_child_computes_on_every_card() -> None:
    answers = ask_software()
    assert all(not answers[stage].error for stage in ("torch", "cuda"))
    assert all(device["computes"] for device in answers["cuda"].values["devices"])
    for choice in gpu_choices():
        assert not choice.usable or runs_on(answers["torch"].values["arches"], choice.card.capability)
