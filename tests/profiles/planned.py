"""Machines, jobs and a forecast of few lines for tests of the solver: the solver must be right for any forecast that
wants less of the card and takes longer the more blocks stream."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random

from engine.hardware.cards import Card, card_named
from profiles.choices import Choices
from profiles.limits import Limits
from profiles.schema import Bucket, Draws, Forecast, Job, Machine, ModelSize, Settings, Stage
from profiles.search import Candidate, Forecasts

FLUX = {
    "hidden_size": 3072, "num_heads": 24, "depth": 19, "depth_single_blocks": 38, "in_channels": 64,
    "out_channels": 64, "context_in_dim": 4096, "vec_in_dim": 768, "mlp_ratio": 4.0, "mlp_hidden": 12288,
    "guidance_embed": True, "qkv_bias": True,
}  # fmt: skip


def _known(name: str, vram_gb: float = 0.0) -> Card:
    card = card_named(name, vram_gb)
    assert card is not None
    return card


DEV = ModelSize("flux1", "dev", FLUX, 23_802_932_552, 9_787_841_024, 246_144_152, 335_304_388, "bf16", 512)

RTX_3060, RTX_4090, RTX_4060 = _known("RTX 3060", 12), _known("RTX 4090"), _known("RTX 4060")
RTX_2080, H100 = _known("RTX 2080 Ti"), _known("H100 PCIe")
CARDS = (RTX_3060, RTX_4090, RTX_4060, RTX_2080, H100)


def machine_with(card: Card | None, ram_gb: float = 64.0, **changes: object) -> Machine:
    """A machine with nothing else running."""
    free = 0.0 if card is None else card.vram_gb - 0.2
    values = {"cores": 8, "cache_disk_gb": 500.0, "runs_disk_gb": 500.0} | changes
    return Machine(card, float(values.pop("free_vram_gb", free)), ram_gb, ram_gb - 3.0, **values)  # type: ignore[arg-type]


def job_at(side: int = 1024, pictures: int = 20, epochs: int = 100, **changes: object) -> Job:
    """Square pictures for FLUX.1-dev."""
    values = {"model": DEV, "buckets": (Bucket(side, side, pictures),), "pictures": pictures, "views": pictures}
    values |= {"captions": pictures + 3, "epochs": epochs, "draws": Draws(3, side, side, 20, False, 10)}
    return Job(**(values | changes))  # type: ignore[arg-type]


BYTES = {"float32": 4.0, "bf16": 2.0, "int8": 1.0, "fp8": 1.0, "nf4": 0.52}
WIDE_COST = {"float32": 1.0, "bf16": 1.0, "int8": 1.05, "fp8": 1.05, "nf4": 1.2}


def rough_forecast(job: Job, settings: Settings, machine: Machine) -> Forecast:
    """Memory and time in a few lines; only for tests."""
    tokens = max(each.width * each.height for each in job.buckets) / 256 + job.model.text_tokens
    weights = 8.6e9 * BYTES[settings.precision]
    streamed = settings.blocks_to_swap / 57 if settings.blocks_to_swap > 2 else 0.0
    kept = {"none": 13.0, "attention": 2.0, "full": 1.0, "offload": 4 / 57}[settings.checkpointing]
    states = {"adamw": 18, "adamw8bit": 12, "adafactor": 11}.get(settings.optimizer, 18)
    modulation = 0 if settings.modulation_cache else 3.25e9 * min(BYTES[settings.precision], 2)
    vram = {
        "weights": weights * (1 - streamed) + (0.05 * weights if streamed else 0) + modulation,
        "adapter": 3.5e6 * settings.rank * states,
        "activations": 57 * tokens * settings.batch * 6144 * kept,
        "working": 25 * tokens * settings.batch * 6144,
        "context": 0.6e9,
    }
    offloaded = 57 * tokens * settings.batch * 6144 if settings.checkpointing == "offload" else 0
    ram = {"process": 3e9, "pinned": weights * streamed + offloaded}
    flops = 12 * 3072**2 * 57 * 2 * tokens
    again = {"none": 2.0, "attention": 2.5, "full": 2.6, "offload": 2.65}[settings.checkpointing]
    if machine.card is None:
        vram, ram = {}, {"process": 3e9 + sum(vram.values()) - 0.6e9}
        rate, link = 0.2e12, 1e12
    else:
        rates, link = machine.card.rates, machine.card.link_gb_s * 1e9
        wide = 0.85 * rates.wide
        fast = 0.5 * (rates.fp8 if settings.precision == "fp8" else rates.int8)
        rate = (fast if settings.compute == "8bit" else wide / WIDE_COST[settings.precision]) * 1e12
    pass_s = flops * again * settings.batch / rate
    pass_s += max(2 * weights * streamed / link - 0.9 * pass_s, 0.0) + 0.05 * (pass_s if offloaded else 0)
    pass_s *= 1.0 + 0.02 / settings.batch  # launches weigh less in larger batches
    pictures = sum(each.count for each in job.buckets)
    steps = job.epochs * -(-pictures // (settings.batch * settings.accumulation))
    step_s = pass_s * settings.accumulation
    stages = [Stage("encode captions", {"t5": int(1e9)}, {"process": int(4e9)}, job.captions * 0.1)]
    stages.append(Stage("train", _whole(vram), _whole(ram), steps * step_s))
    side = job.draws.width * job.draws.height
    if job.draws.count:
        held = {"weights": vram.get("weights", 0.0), "decode": 3e3 * side}
        stages.append(Stage("sample", _whole(held) if vram else {}, _whole(ram), job.draws.times * step_s * 4))
    disk = {
        "cache latents": int(pictures * 1e6),
        "cache packed base": int(weights) if weights < 1e10 else 0,
        "runs": int(3e8),
    }
    lora = 7 * 1000 * 1000 * settings.rank
    return Forecast(tuple(stages), disk, step_s, "computing", steps, lora)


def _whole(parts: dict[str, float]) -> dict[str, int]:
    return {name: int(size) for name, size in parts.items()}


def everything(choices: Choices, limits: Limits, forecasts: Forecasts) -> Iterator[Candidate]:
    """Every choice there is that fits, tried one by one."""
    values = product(choices.ways, choices.swaps, choices.kept, choices.modulation, choices.batches)
    for settings in (choices.settings(*each) for each in values):
        forecast = forecasts(settings)
        if not limits.lacking(forecast):
            yield Candidate(settings, forecast)


def drawn(random: Random) -> tuple[Job, Machine]:
    """Some job on some machine."""
    card = random.choice(CARDS)
    free = random.uniform(0.3, 1.0) * card.vram_gb
    machine = machine_with(card, random.choice((16.0, 32.0, 64.0, 128.0)), free_vram_gb=free)
    job = job_at(random.choice((512, 768, 1024)), random.randint(5, 80), random.randint(1, 60))
    return job, machine
