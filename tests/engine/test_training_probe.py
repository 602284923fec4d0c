"""The probe before a run: what it tells, and that the run that follows has the bits of one that was not probed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pocket import finish, pictures, pocket_config, told
from safetensors.torch import load_file

import engine.training.probe as probe
from engine.commands import Pause, Resume, StopNow
from engine.config import RunConfig
from engine.events import Log, MemoryHeld, Probed, Progress, RunDone, RunFailed, StateChanged, StepDone, SteppedDown
from engine.hardware.gpu import Gpu, GpuProcess
from engine.run import Run, open_run
from engine.training.control import Control
from engine.training.kit import Kit

HARD = {
    "lora": {"dropout": 0.1, "rank_dropout": 0.1, "max_norm": 0.5},
    "dataset": {"flip": True, "random_crop": True, "captions": {"dropout": 0.2, "shuffle": True}},
    "schedule": {"name": "cosine", "warmup_steps": 2},
}
SHORT = {"training": {"epochs": 1}, "memory": {"probe": "on"}}


def ended(run: Run) -> tuple[dict[str, torch.Tensor], list[float]]:
    assert run.exit_reason == "finished", told(run, RunFailed)
    losses = [event.loss for event in told(run, StepDone)]
    return load_file(run.folder.root / f"{run.folder.name}.safetensors"), losses


def assert_same(first: Any, second: Any) -> None:
    (weights, losses), (others, other_losses) = first, second
    assert losses == other_losses and weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def config_of(home: Any, probed: str, optimizer: str = "adamw", **memory: Any) -> RunConfig:
    changes: dict[str, Any] = HARD | {
        "optimizer": {"name": optimizer, "learning_rate": 1.0 if optimizer == "prodigy" else 2e-3},
        "training": {"epochs": 2},
        "memory": {"probe": probed, **memory},
    }
    return pocket_config(home, **changes)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One cache and dataset for all."""
    return tmp_path_factory.mktemp("probe")


@pytest.fixture(scope="module")
def plain(home: Any) -> Any:
    """What a run without a probe ends with."""
    return ended(finish(Run(config_of(home, "off"))))


OPTIMIZERS = [
    "adamw8bit",
    pytest.param("adafactor", marks=pytest.mark.slow),
    "prodigy",
    pytest.param("adamw_schedulefree", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_probed_run_has_the_bits_of_one_that_was_not(home: Any, optimizer: str) -> None:
    plain = ended(finish(Run(config_of(home, "off", optimizer))))
    run = finish(Run(config_of(home, "on", optimizer)))
    assert_same(ended(run), plain)
    assert len(told(run, Probed)) == 1


@pytest.mark.parametrize("memory", [{"precision": "int8", "blocks_to_swap": 3}, {"modulation_cache": False}])
def test_nor_does_it_show_where_weights_stream_or_products_are_measured(home: Any, memory: dict[str, Any]) -> None:
    plain = ended(finish(Run(config_of(home, "off", **memory))))
    assert_same(ended(finish(Run(config_of(home, "on", **memory)))), plain)


def test_a_resumed_run_may_be_probed_too(home: Any, plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.trainer import Trainer

    step_of = Trainer._step

    def stepping(self: Any, turn: Any) -> None:
        step_of(self, turn)
        if turn.step in (2, 4):
            self.control.commands.submit(StopNow())

    monkeypatch.setattr(Trainer, "_step", stepping)
    run = finish(Run(config_of(home, "on")))
    losses = [event.loss for event in told(run, StepDone)]
    while run.exit_reason == "stopped":
        assert run.folder is not None
        run = finish(open_run(run.folder.root))
        assert len(told(run, Probed)) == 1
        losses += [event.loss for event in told(run, StepDone)]
    assert_same((ended(run)[0], losses), plain)


def test_it_leaves_state_gradients_and_generators_as_they_were(home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    real = probe.probe_largest

    def watched(kit: Kit, *rest: Any) -> None:
        def now() -> tuple[Any, ...]:
            groups = [{k: v for k, v in g.items() if k != "params"} for g in kit.optimizer.param_groups]
            return kit.lora.weights.clone(), kit.lora.gradients.clone(), torch.get_rng_state(), repr(groups)

        before = now()
        real(kit, *rest)
        after = now()
        seen.extend(torch.equal(a, b) for a, b in zip(before[:3], after[:3], strict=True))
        seen.append(before[3] == after[3] and not kit.optimizer.state)
        casts = kit.lora._storage._casts.items()
        seen.extend(torch.equal(flat, kit.lora.weights.to(dtype)) for dtype, (flat, *_) in casts)

    monkeypatch.setattr("engine.trainer.probe_largest", watched)
    ended(finish(Run(config_of(home, "on"))))
    assert seen and all(seen)


def test_what_it_tells(home: Any) -> None:
    run = finish(Run(pocket_config(home, **SHORT)))
    (found,) = told(run, Probed)
    assert found.tokens == max(step.tokens for step in told(run, StepDone)), (
        "of a whole step, however few its last has"
    )
    assert found.width * found.height // 256 * 2 + 2 * 20 == found.tokens and found.batch == 1
    assert 0 < found.standing_gb < found.allocated_gb < found.peak_gb
    assert 0 < found.step_s < 60 and found.total_gb == found.context_gb == 0
    stages = [event for event in told(run, Progress) if event.stage == probe.STAGE]
    assert [event.done for event in stages] == [0, 1, 2] and stages[0].detail.startswith("1 picture of ")
    kinds = [type(entry.event) for entry in run.events.since(0)]
    assert kinds.index(Probed) < kinds.index(StepDone)


@pytest.mark.parametrize(("setting", "resuming"), [("auto", False), ("off", False), ("off", True)])
def test_a_processor_is_probed_only_when_asked_for(tmp_path: Any, setting: str, resuming: bool) -> None:
    class Cpu:
        device = torch.device("cpu")

    class Cuda:
        device = torch.device("cuda")

    config = pocket_config(tmp_path, memory={"probe": setting})
    assert not probe.is_wanted(config, Cpu(), resuming)  # type: ignore[arg-type]
    assert probe.is_wanted(config, Cuda(), resuming) == (setting == "auto")  # type: ignore[arg-type]
    assert not probe.is_wanted(config, Cuda(), resuming=True)  # type: ignore[arg-type]


def test_the_largest_micro_batch_counts_pictures_too(tmp_path: Any) -> None:
    pictures(tmp_path / "data", 5)
    run = finish(Run(pocket_config(tmp_path, training={"batch_size": 2, "epochs": 1}, memory={"probe": "on"})))
    (found,) = told(run, Probed)
    most = max(told(run, StepDone), key=lambda step: step.tokens)
    assert found.batch == 2 and found.tokens >= most.tokens


def asked(monkeypatch: pytest.MonkeyPatch, *commands: Any) -> None:
    """Submit commands while the probe makes its first step."""
    step_of = probe._step

    def stepping(*arguments: Any) -> Any:
        done = step_of(*arguments)
        for command in commands:
            controls[-1].commands.submit(command)
        return done

    controls: list[Control] = []
    real = probe.probe_largest

    def watched(kit: Any, config: Any, events: Any, control: Control) -> None:
        controls.append(control)
        real(kit, config, events, control)

    monkeypatch.setattr(probe, "_step", stepping)
    monkeypatch.setattr("engine.trainer.probe_largest", watched)


def test_a_stop_is_obeyed(home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(monkeypatch, StopNow())
    run = finish(Run(pocket_config(home, **SHORT)))
    (done,) = told(run, RunDone)
    assert run.exit_reason == "stopped" and done.step == 0
    assert not told(run, Probed) and not told(run, StepDone)


def test_a_pause_is_obeyed(home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(monkeypatch, Pause(), Resume(), Pause())
    run = Run(pocket_config(home, **SHORT))
    run.start()
    for _ in range(600):
        if any(event.state == "paused" for event in told(run, StateChanged)):
            break
        run.join(0.05)
    assert run.state == "paused" and not told(run, Probed) and not told(run, StepDone)
    assert any("left for the pause" in event.text for event in told(run, Log))
    run.submit(Resume())
    assert run.join(60) and run.exit_reason == "finished"


@pytest.mark.parametrize("where", ["gradients", "update"])
def test_out_of_memory_in_it_goes_down_the_ladder_and_leaves_no_trace(
    home: Any, plain: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The first rung changes no bit; the second try must find everything as it was."""
    place, name = (probe, "clip_gradients") if where == "gradients" else (probe.Stepper, "apply")
    inner: Callable[..., Any] = getattr(place, name)
    calls: list[int] = []

    def fails_once(*arguments: Any) -> Any:
        found = inner(*arguments)
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("no room")
        return found

    monkeypatch.setattr(place, name, fails_once)
    run = finish(Run(config_of(home, "on")))
    assert_same(ended(run), plain)
    assert len(told(run, Probed)) == 1
    (down,) = told(run, SteppedDown)
    assert (down.stage, down.step, down.setting) == ("probing", 0, "empty_cache")


def test_where_nothing_fits_the_run_is_refused_before_any_work(home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(probe, "clip_gradients", fails)
    run = finish(Run(config_of(home, "on", ladder="off")))
    (failure,) = told(run, RunFailed)
    assert failure.title == "The GPU is out of memory" and "probing" in failure.detail
    assert not told(run, StepDone) and run.folder is not None and not list(run.folder.root.glob("*.safetensors"))


def gpu(*processes: GpuProcess) -> Gpu:
    return Gpu(0, "GPU-1", "card", 24.0, 9.0, 15.0, processes, (8, 9), "1", None, None, None)


def test_the_drivers_share_is_told_only_where_it_can_be_told_apart() -> None:
    assert probe.context_of(0.5, gpu()) == 0.5
    assert probe.context_of(3.0, gpu(GpuProcess(1, 2.25))) == 0.75
    assert probe.context_of(3.0, gpu(GpuProcess(1, None))) == 0.0, "a container: others' memory is hidden"
    assert probe.context_of(7.0, gpu()) == 0.0, "more than any driver keeps"
    assert probe.context_of(0.5, None) == 0.0


def test_what_a_card_held_is_told_by_the_allocators_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        total_memory = 24 * 2**30

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    parts = MemoryHeld(8.0, 0.5, 1.0, 2.0, 0.5, 99.0), MemoryHeld(8.0, 1.0, 1.0, 2.25, 0.5, 99.0)
    seen = [
        probe._Step(held, {"data": 0.1, "forward": 0.4, "backward": 0.8, "optimizer": 0.05}, 4608) for held in parts
    ]
    placement = SimpleNamespace(bucket_w=1024, bucket_h=768)
    micro = SimpleNamespace(items=[SimpleNamespace(view=SimpleNamespace(placement=placement))] * 3)
    found = probe.Largest(micro, None, 0, 4)  # type: ignore[arg-type]
    kit = SimpleNamespace(compute=SimpleNamespace(device=torch.device("cuda")), micro_batch=0)
    told_of = probe._told(kit, found, seen, 13.5, 0.45)  # type: ignore[arg-type]
    assert told_of == Probed(13.95, 12.75, 9.5, 5.25, 4 * 4608, 1024, 768, 3, 24.0, 0.45)
    kit.micro_batch = 2
    assert probe._told(kit, found, seen, 13.5, 0.45).batch == 2  # type: ignore[arg-type]
