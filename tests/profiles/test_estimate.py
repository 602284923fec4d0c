"""The forecast as its readers see it: stages, parts, disk as a run leaves it, time, and how quickly it comes."""

import time
from dataclasses import replace

import pytest

from engine.dataset.scan import Sample
from engine.hardware.cards import Card
from engine.hardware.rates import rates_of
from engine.memory.simulate import TRAINING, simulate
from engine.run import Run
from profiles import efficiency, time_model
from profiles.estimate import forecast
from profiles.job import job_for, job_of, settings_of
from profiles.memory_model import CONTEXT, plan_of
from profiles.schema import GIB, Bucket, Correction, Draws, Machine, Settings
from profiles.sizes import FluxSize
from tests.bench.trace.against import MACHINE
from tests.pocket import finish, pocket_config

JOB = job_for(pictures=20, repeats=10, prompts=2)


def on(name: str, vram_gb: float, capability: tuple[int, int], link: float = 25.0) -> Machine:
    rates = rates_of(name)
    assert rates is not None
    return replace(MACHINE, card=Card(name, vram_gb, capability, rates, link), free_vram_gb=vram_gb)


def test_every_stage_of_a_run_is_there_in_its_order():
    found = forecast(JOB, Settings(), MACHINE)
    assert [s.name for s in found.stages] == ["encode latents", "encode captions", "load", "train", "sample"]
    assert all(s.seconds > 0 and s.vram["context"] == CONTEXT and s.ram["process"] for s in found.stages)
    assert found.peak_vram_gb == max(s.vram_gb for s in found.stages)
    assert found.total_s == pytest.approx(sum(s.seconds for s in found.stages))
    # Decoding a picture beside the whole base takes more than a step does.
    assert found.peak.name == "sample"
    without = forecast(replace(JOB, draws=Draws()), Settings(), MACHINE)
    assert without.peak.name == "train"
    assert without.steps == 2000


def test_the_largest_bucket_decides_the_peak_and_the_mean_the_time():
    mixed = replace(JOB, buckets=(Bucket(512, 512, 150), Bucket(1024, 1024, 2), Bucket(768, 768, 48)))
    large = replace(JOB, buckets=(Bucket(1024, 1024, 200),))
    settings = Settings(batch=2)
    found, whole = forecast(mixed, settings, MACHINE), forecast(large, settings, MACHINE)
    assert found.stage("train").vram == whole.stage("train").vram
    assert found.step_s < 0.5 * whole.step_s
    # One picture of the largest size cannot fill a batch.
    lonely = replace(mixed, buckets=(Bucket(512, 512, 150), Bucket(1024, 1024, 1)))
    assert forecast(lonely, settings, MACHINE).peak_vram_gb < found.peak_vram_gb


def test_without_a_card_everything_is_in_host_memory():
    found = forecast(JOB, Settings(precision="float32"), Machine(None, 0, 64, 60, 8, 500, 500))
    assert found.peak_vram_gb == 0
    ram = found.stage("train").ram
    size = FluxSize()
    assert ram["weights"] > 4 * 8.5e9 and ram["modulation layers"] == 4 * size.modulation
    assert found.peak_ram_gb > 48
    assert found.step_s > 100


def test_a_card_without_bf16_computes_in_float32():
    turing = Card("RTX 2080 Ti", 11, (7, 5), replace(rates_of("RTX 3060"), bf16=27.0, int8=215.0), 12.5)
    old = forecast(JOB, Settings(precision="int8"), replace(MACHINE, card=turing))
    new = forecast(JOB, Settings(precision="int8"), MACHINE)
    assert old.stage("train").vram["working"] > 1.5 * new.stage("train").vram["working"]


def test_what_is_chosen_shows():
    base = forecast(JOB, Settings(), MACHINE)
    vram = base.stage("train").vram

    def with_(**changes):
        return forecast(JOB, Settings(**changes), MACHINE)

    assert with_(precision="int8").stage("train").vram["weights"] < 0.52 * vram["weights"]
    streamed = with_(blocks_to_swap=28)
    assert streamed.stage("train").ram["streamed blocks"] == pytest.approx(7.7e9, rel=0.01)
    assert streamed.stage("train").vram["ring"] == pytest.approx(0.907e9, rel=0.01)
    assert with_(checkpointing="offload").stage("train").ram["offloaded inputs"] == 57 * 27 * 2**20
    assert with_(checkpointing="none").step_s < with_(checkpointing="attention").step_s < base.step_s
    assert with_(modulation_cache=False).stage("train").vram["modulation"] > 6.4e9
    assert "modulation layers" not in with_(modulation_cache=False).stage("train").ram
    assert with_(optimizer="paged_adamw").stage("train").ram["optimizer"] > 0.4e9
    assert with_(rank=32).lora_bytes == pytest.approx(2 * base.lora_bytes, rel=0.02)
    assert with_(accumulation=4).step_s == pytest.approx(4 * base.step_s, rel=0.01)


def test_a_host_without_room_reads_the_modulation_layers_from_their_file():
    small = replace(MACHINE, free_ram_gb=6.0)
    found = forecast(JOB, Settings(), small).stage("train").ram
    assert found["modulation layers"] < 0.2e9
    assert forecast(JOB, Settings(), small).step_s > forecast(JOB, Settings(), MACHINE).step_s


def test_a_measured_correction_is_applied():
    plain = forecast(JOB, Settings(), MACHINE)
    found = forecast(JOB, Settings(), MACHINE, Correction(vram_factor=1.1, extra_bytes=GIB // 4, step_factor=1.5))
    for stage, before in zip(found.stages, plain.stages, strict=True):
        own = before.vram_gb - CONTEXT / GIB
        assert stage.vram_gb == pytest.approx(1.1 * own + CONTEXT / GIB + 0.25, abs=1e-6)
        assert stage.ram == before.ram
    assert found.step_s == pytest.approx(1.5 * plain.step_s)


def test_a_forecast_is_quick_enough_to_ask_for_thousands():
    asked = [Settings(precision="int8", blocks_to_swap=n, rank=rank) for n in range(58) for rank in (8, 16, 32)]
    for settings in asked:
        forecast(JOB, settings, MACHINE)
    began = time.process_time()
    for settings in asked:
        forecast(JOB, settings, MACHINE)
    assert (time.process_time() - began) / len(asked) < 1e-3


@pytest.mark.parametrize("swap", [2, 8, 28, 44, 52, 57])
@pytest.mark.parametrize("ratio", [0.3, 0.9, 1.3, 3.0])
def test_stalls_are_those_of_the_simulated_stream(swap, ratio):
    plan = plan_of(FluxSize(), "int8", 2, swap)
    forward, backward = 0.57, 1.14
    link = sum(plan.sizes) / plan.blocks / (ratio * forward / plan.blocks)
    each = ([forward / 57] * 57, [backward / 57] * 57)
    simulated = simulate(plan, [TRAINING] * 3, *each, link).passes[-1].seconds
    said = forward + backward + time_model.streaming_stall(plan, forward, backward, link)
    assert said == pytest.approx(simulated, rel=0.005)


def test_times_are_those_of_the_published_table():
    # docs/performance.md, expected step times: fused kernels at 1024 px, then attention kept, then 8-bit linears.
    for name, capability, wanted in (("H200", (9, 0), (0.39, 0.36)), ("RTX 4090", (8, 9), (1.85, 1.71))):
        machine = on(name, 80, capability)
        job = replace(JOB, draws=Draws())
        found = [forecast(job, Settings(checkpointing=kept), machine).step_s for kept in ("full", "attention")]
        assert found == pytest.approx(wanted, rel=0.03)
    int8 = forecast(JOB, Settings(precision="int8", checkpointing="attention"), on("RTX 4090", 24, (8, 9)))
    assert int8.step_s == pytest.approx(1.07, rel=0.06)


def test_a_slow_link_and_a_fast_card_are_named():
    slow = forecast(JOB, Settings(blocks_to_swap=57), on("H200", 141, (9, 0), link=6.0))
    assert slow.slowest == "PCIe"
    assert forecast(JOB, Settings(), on("RTX 3060", 12, (8, 6))).slowest == "computing"
    small = replace(JOB, buckets=(Bucket(256, 256, 100),))
    quick = forecast(small, Settings(checkpointing="none"), on("H200", 141, (9, 0)))
    assert quick.step_s >= time_model.LAUNCHES["none"][0] * 19 * efficiency.LAUNCH_S


def test_disk_is_what_a_run_leaves(tmp_path):
    config = pocket_config(tmp_path, saving={"layouts": ["kohya", "diffusers"], "keep_states": 2})
    run = finish(Run(config))
    here = Machine(None, 0, 32, 24, 2, 100, 100)
    folder = tmp_path / "data"
    found = [
        Sample(n, path, path.name, None, path.with_suffix(".txt").read_text(), 64, 64, 1, False, "PNG")
        for n, path in enumerate(sorted(folder.glob("*.png")))
    ]
    said = forecast(job_of(config, found), settings_of(config, here), here)

    def left(root, pattern):
        return sum(path.stat().st_size for path in root.glob(pattern) if path.is_file())

    cached = left(tmp_path / "cache", "??/*.safetensors")
    assert said.disk["cache latents"] + said.disk["cache captions"] == pytest.approx(cached, rel=0.1)
    assert said.disk["LoRA files"] == pytest.approx(left(run.folder.root, "*.safetensors"), rel=0.1)
    assert said.disk["states"] * 2 / 3 == pytest.approx(left(run.folder.states, "*/*.safetensors"), rel=0.1)
    assert said.steps == 9
