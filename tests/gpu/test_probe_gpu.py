"""The probe on a GPU: no trace in the bits of the run, and memory as the run then needs it."""

import pytest
import torch
from pocket import finish, pocket_config, told
from safetensors.torch import load_file

from engine.events import Foreseen, MemoryHeld, Probed, RunFailed, Slowed, StepDone
from engine.run import Run
from profiles.foresee import Foresight, machine_of
from profiles.measured import Measured

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(params=["adamw", "adamw8bit", "adafactor", "paged_adamw8bit"])
def runs(request, tmp_path):
    """A run with a probe, which a GPU has by itself, and one without."""
    training = {"device": "cuda", "deterministic": True, "epochs": 4}
    found = []
    for probe in ("auto", "off"):
        optimizer = {"name": request.param, "learning_rate": 2e-3}
        config = pocket_config(tmp_path, training=training, optimizer=optimizer, memory={"probe": probe})
        found.append(finish(Run(config)))
        assert found[-1].exit_reason == "finished", told(found[-1], RunFailed)
    return found


def test_the_run_has_the_bits_of_one_that_was_not_probed(runs):
    probed, plain = runs
    ours, wanted = (load_file(run.folder.root / f"{run.folder.name}.safetensors") for run in runs)
    assert all(torch.equal(ours[name], wanted[name]) for name in wanted)
    assert [step.loss for step in told(probed, StepDone)] == [step.loss for step in told(plain, StepDone)]
    assert len(told(probed, Probed)) == 1 and not told(plain, Probed) and not told(probed, Slowed)


def test_it_measures_what_the_run_then_needs(runs, tmp_path):
    run = runs[0]
    (found,) = told(run, Probed)
    held = [sum(list(vars(each).values())[:5]) for each in told(run, MemoryHeld)]
    assert max(held) <= found.allocated_gb * 1.05 + 0.002
    assert 0 < found.standing_gb <= found.allocated_gb <= found.peak_gb - found.context_gb < found.total_gb
    foreseen, kept = Foresight(run.config, machine_of(run.config), Measured(tmp_path / "m")).of_probe(found)
    assert isinstance(foreseen, Foreseen) and foreseen.peak_gb > 0 and kept.vram_gb > 0
    print(found, foreseen)
