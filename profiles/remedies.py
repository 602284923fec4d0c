"""What would have to change where a run does not fit. No torch.

Nothing is advised that was not solved: each remedy is the same task with one thing changed, and is named only where
that fits. The cheapest for the user come first: giving back what they fixed, then smaller work, then other hardware.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from engine.hardware.cards import typical_card
from profiles import choices as names
from profiles.chooser import Choice, Task, choose
from profiles.limits import DISK_MARGIN_GB, RAM_MARGIN_GB
from profiles.machine import TAKEN_VRAM_GB
from profiles.schema import Bucket, Job

MOST = 6
"""Remedies that are named; more would not be read."""

RESOLUTIONS = (1024, 768, 512)
RANKS = (512, 256, 128, 64, 32, 16, 8, 4)
CARDS_GB = (8, 10, 12, 16, 24, 32, 48, 80, 96, 141)
RAM_GB = (8, 12, 16, 24, 32, 48, 64, 96, 128)
BUCKET_STEP = 64


def remedies(task: Task, choice: Choice) -> tuple[str, ...]:
    """What would make the run fit, in words; where no one thing does, what lacks."""
    found = []
    for words in _single(task, choice):
        found.append(words)
        if len(found) == MOST:
            break
    if not found:
        found = list(_together(task))
    return tuple(found) or tuple(f"{lack.text()}: no one change helps." for lack in choice.lacks)


def _fits(task: Task) -> bool:
    return choose(task).fits


def _single(task: Task, choice: Choice) -> Iterator[str]:
    lacks = {lack.what for lack in choice.lacks}
    yield from _given_back(task)
    yield from _of_wishes(task)
    if lacks & {"VRAM", "RAM"}:
        yield from _less_sampling(task, choice)
        yield from _smaller(task, choice)
        yield from _other_machine(task, lacks)
    if lacks & {"disk", "cache disk"}:
        yield from _of_disk(task, choice)


def _given_back(task: Task) -> Iterator[str]:
    """What the user has fixed, left to the solver again."""
    for key in task.fixed:
        free = choose(task.without_fixed(key))
        if free.fits:
            value = names.config_value(free.chosen.settings, key, task.machine.card)
            yield f"Leave {key} to the solver: {str(value).lower()} fits."
    many = [key for key in task.fixed if key not in (names.RANK, names.TARGETS)]
    if len(many) > 1 and _fits(task.without_fixed(*many)):
        yield f"Leave {' and '.join(many)} to the solver."


def _of_wishes(task: Task) -> Iterator[str]:
    wishes, machine = task.wishes, task.machine
    for share in (0.75, 0.5, 0.25, 0.0) if wishes.leave_gb else ():
        left = wishes.leave_gb * share
        if _fits(task.wishing(replace(wishes, leave_gb=left))):
            yield f"Leave others {left:.1f} GB of the card instead of {wishes.leave_gb:.1f} GB."
            break
    if not wishes.nf4 and _fits(task.wishing(replace(wishes, nf4=True))):
        yield "Allow nf4, the coarsest precision of the base."
    if machine.card is not None and not machine.bitsandbytes:
        with_it = task.elsewhere(machine=replace(machine, bitsandbytes=True))
        if _fits(with_it):
            yield "Install bitsandbytes: it brings nf4 and 8-bit AdamW."


def _less_sampling(task: Task, choice: Choice) -> Iterator[str]:
    """Smaller sample pictures, or none, where drawing them is what does not fit."""
    draws = task.job.draws
    if not draws.count or all(lack.stage != "sample" for lack in choice.lacks):
        return
    for side in RESOLUTIONS:
        smaller = _drawn_within(task.job, side)
        if smaller != task.job and _fits(task.elsewhere(smaller)):
            yield f"Draw samples at {side} x {side}: sampling.width and sampling.height."
            return
    if _fits(task.elsewhere(replace(task.job, draws=replace(draws, count=0, times=0)))):
        yield "Draw no samples while training (sampling.prompts = []); `kiln sample` draws them afterwards."


def _drawn_within(job: Job, side: int) -> Job:
    """The job with sample pictures no larger than ``side``."""
    draws = job.draws
    return replace(job, draws=replace(draws, width=min(draws.width, side), height=min(draws.height, side)))


def _smaller(task: Task, choice: Choice) -> Iterator[str]:
    """The same run with less in it."""
    settings, side = choice.chosen.settings, resolution_of(task.job)
    if settings.batch > 1:
        fewer = {names.BATCH: 1, names.ACCUMULATION: settings.batch * settings.accumulation}
        if _fits(task.with_fixed(fewer)):
            whole = settings.batch * settings.accumulation
            yield f"One picture at a time, {whole} to a step: training.batch_size = 1, accumulation = {whole}."
    for smaller in (each for each in RESOLUTIONS if each < side):
        trained = at_resolution(task.job, smaller)
        if _fits(task.elsewhere(trained)):
            yield f"Train at {smaller} px instead of {side}: dataset.resolution = {smaller}."
            break
        if _fits(task.elsewhere(_drawn_within(trained, smaller))):
            keys = "dataset.resolution, sampling.width and sampling.height"
            yield f"Train and draw samples at {smaller} px instead of {side}: {keys}."
            break
    for rank in (each for each in RANKS if each < settings.rank):
        if _fits(task.with_fixed({names.RANK: rank})):
            yield f"A smaller LoRA: lora.rank = {rank} instead of {settings.rank}."
            break


def _other_machine(task: Task, lacks: set[str]) -> Iterator[str]:
    machine = task.machine
    if machine.card is None:
        yield from _with_a_card(task)
        return
    if "RAM" in lacks:
        for gb in (each for each in RAM_GB if each - RAM_MARGIN_GB > machine.free_ram_gb):
            if _fits(task.elsewhere(machine=replace(machine, ram_gb=gb, free_ram_gb=gb))):
                yield f"{gb} GB of free host memory suffice; {machine.free_ram_gb:.1f} GB are free now."
                break
    if "VRAM" in lacks:
        closed = replace(machine, free_vram_gb=machine.card.vram_gb)
        if machine.free_vram_gb < 0.95 * machine.card.vram_gb and _fits(task.elsewhere(machine=closed)):
            taken = machine.card.vram_gb - machine.free_vram_gb
            yield f"Close what else uses the card: {taken:.1f} GB of it are taken."
            return
        for gb in (each for each in CARDS_GB if each > machine.card.vram_gb):
            larger = replace(machine, card=replace(machine.card, vram_gb=gb), free_vram_gb=float(gb))
            if _fits(task.elsewhere(machine=larger)):
                yield f"A card of {gb} GB suffices."
                break


def _with_a_card(task: Task) -> Iterator[str]:
    """The smallest usual card that would do, in this machine."""
    for gb in CARDS_GB:
        card = typical_card(gb)
        larger = replace(task.machine, card=card, free_vram_gb=card.vram_gb - TAKEN_VRAM_GB)
        found = choose(task.elsewhere(machine=larger))
        if found.fits:
            step = found.chosen.forecast.step_s
            yield f"Train on a GPU: one with {gb} GB, like the {card.name}, does a step in {step:.1f} s."
            return


def _of_disk(task: Task, choice: Choice) -> Iterator[str]:
    missing = sum(lack.missing_gb for lack in choice.lacks if lack.what.endswith("disk"))
    free = missing + DISK_MARGIN_GB
    roomier = replace(
        task.machine,
        cache_disk_gb=task.machine.cache_disk_gb + free,
        runs_disk_gb=task.machine.runs_disk_gb + free,
    )
    if _fits(task.elsewhere(machine=roomier)):
        where = {lack.what: lack for lack in choice.lacks}
        place = "where the caches go (or set cache_dir elsewhere)" if "cache disk" in where else "where the runs go"
        yield f"Free {missing + 0.05:.1f} GB of disk {place}."


def _together(task: Task) -> Iterator[str]:
    """Where no one thing helps: the smallest work of all, and with it the smallest card."""
    side = RESOLUTIONS[-1]
    smallest = _drawn_within(at_resolution(task.job, side), side)
    least = task.elsewhere(smallest).without_fixed(*task.fixed).with_fixed({names.RANK: RANKS[-1], names.BATCH: 1})
    if _fits(least):
        yield f"Only all of this together fits: {side} px, samples too, rank {RANKS[-1]}, one picture at a time."
        return
    machine = task.machine
    if machine.card is None:
        return
    for gb in (each for each in CARDS_GB if each > machine.card.vram_gb):
        for ram in (each for each in RAM_GB if each >= machine.free_ram_gb):
            larger = replace(
                machine, card=replace(machine.card, vram_gb=gb), free_vram_gb=float(gb), ram_gb=ram, free_ram_gb=ram
            )
            if _fits(task.elsewhere(machine=larger)):
                yield f"It would take a card of {gb} GB and {ram} GB of free host memory."
                return


def resolution_of(job: Job) -> int:
    """The side of the square that the job's largest pictures amount to, in steps of 64 pixels."""
    most = max((bucket.width * bucket.height for bucket in job.buckets), default=0)
    return round(most**0.5 / BUCKET_STEP) * BUCKET_STEP


def at_resolution(job: Job, side: int) -> Job:
    """The job with its pictures at another resolution, their shapes kept as far as buckets allow."""
    factor = side / max(resolution_of(job), 1)

    def scaled(length: int) -> int:
        return max(int(length * factor / BUCKET_STEP + 0.5), 1) * BUCKET_STEP

    buckets = tuple(Bucket(scaled(each.width), scaled(each.height), each.count) for each in job.buckets)
    return replace(job, buckets=buckets)
