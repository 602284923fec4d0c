"""The forecast: what a run will hold and take on a machine, stage by stage. Pure, torch-free, quick.

A solver asks for thousands of forecasts: plans, sizes and sums that do not change from one to the next are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from profiles import memory_model, time_model
from profiles.disk_model import disk, lora_file
from profiles.memory_model import Held, Parts
from profiles.schema import NONE, Correction, Forecast, Job, Machine, Settings, Stage

Memory = Callable[[Held], tuple[Parts, Parts]]


def forecast(job: Job, settings: Settings, machine: Machine, correction: Correction = NONE) -> Forecast:
    """What ``job`` will need with these settings on this machine.

    Args:
        job: what is trained, in sizes.
        settings: the choices that decide memory and time.
        machine: where.
        correction: what an earlier measurement on this machine says of forecasts for it.

    Raises:
        ConfigError: ``blocks_to_swap`` is more than the model has.
    """
    held = Held(job, settings, machine)
    steps = steps_of(job, settings)
    micro = time_model.mean_step(held)
    step_s = settings.accumulation * (micro.seconds + settings.batch * time_model.table_s(held))
    step_s = (step_s + time_model.update_s(held)) * correction.step_factor
    training_s = steps * step_s
    stages = [
        _stage("encode latents", memory_model.encode_latents, time_model.encode_latents_s(held), held),
        _stage("encode captions", memory_model.encode_captions, time_model.encode_captions_s(held), held),
        _stage("load", memory_model.load, time_model.load_s(held), held),
        _stage("train", memory_model.train, training_s + time_model.saving_s(held, training_s), held),
    ]
    if job.draws.count and job.draws.times:
        seconds = time_model.sampling_s(held, job.draws) * correction.step_factor
        stages.append(replace(_stage("sample", memory_model.sample, seconds, held), times=job.draws.times))
    if correction != NONE:
        stages = [_corrected(stage, correction) for stage in stages]
    return Forecast(
        stages=tuple(stages),
        disk=disk(held),
        step_s=step_s,
        slowest=micro.slowest,
        steps=steps,
        lora_bytes=lora_file(held, diffusers=job.diffusers and job.layouts == 1),
    )


def _stage(name: str, memory: Memory, seconds: float, held: Held) -> Stage:
    vram, ram = memory(held)
    return Stage(name, vram, ram, seconds)


def _corrected(stage: Stage, correction: Correction) -> Stage:
    """The stage with what was measured on the machine; the context is no allocation and has no factor."""
    if not stage.vram:
        return stage
    factor = correction.vram_factor
    vram = {name: size if name == "context" else int(size * factor) for name, size in stage.vram.items()}
    vram["context"] = max(0, vram.get("context", 0) + correction.extra_bytes)
    return replace(stage, vram=vram)


def steps_of(job: Job, settings: Settings) -> int:
    """Optimizer steps of the whole run, as :class:`engine.batches.Order` counts them."""
    micros = sum(-(-bucket.count // settings.batch) for bucket in job.buckets)
    each = -(-micros // (settings.accumulation * job.processes))
    if not job.epochs:
        return job.steps
    return min(job.steps, job.epochs * each) if job.steps else job.epochs * each
