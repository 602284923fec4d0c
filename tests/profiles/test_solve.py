"""The solver chooses what fits and is quick, explains it, and says what would have to change where nothing fits."""

from __future__ import annotations

import time
from dataclasses import replace
from random import Random

import pytest
from planned import (
    DEV,
    FLUX,
    H100,
    RTX_2080,
    RTX_3060,
    RTX_4060,
    RTX_4090,
    drawn,
    everything,
    job_at,
    machine_with,
    rough_forecast,
)

from engine.errors import ConfigError
from engine.hardware.rates import CardRates
from profiles import choices as names
from profiles.choices import choices_for
from profiles.chooser import CONCESSION, Task
from profiles.estimate import forecast
from profiles.limits import Limits
from profiles.remedies import at_resolution, resolution_of
from profiles.schema import Bucket, Correction, Fit, Job, Machine, Settings, Wishes
from profiles.solve import learned, solve

SEED = 20_26


def solved(job: Job, machine: Machine, wishes: Wishes | None = None, **more: object) -> Fit:
    return solve(job, machine, wishes, estimate=rough_forecast, **more)  # type: ignore[arg-type]


def reason(fit: Fit, key: str) -> str:
    return next(each.reason for each in fit.reasons if each.key == key)


@pytest.mark.parametrize("number", range(12))
def test_as_quick_as_the_best_of_all(number: int) -> None:
    """Against every choice tried one by one, on drawn machines and jobs, for each aim."""
    random = Random(SEED * 1000 + number)
    job, machine = drawn(random)
    start = Settings(batch=1, accumulation=random.choice((1, 1, 2, 4)), rank=random.choice((4, 16, 64)))
    wishes = Wishes(leave_gb=random.choice((0.0, 0.0, 1.0)), nf4=random.random() < 0.7)
    task = Task(job, machine, wishes, {}, start, rough_forecast)
    choices = choices_for(job, machine, wishes, {}, start)
    limits = Limits.of(machine, wishes)
    all_that_fit = list(everything(choices, limits, task.forecast))
    for aim in CONCESSION:
        fit = solved(job, machine, replace(wishes, aim=aim), start=start, alternatives=False)
        assert fit.fits == bool(all_that_fit)
        if not all_that_fit:
            continue
        assert not limits.lacking(fit.forecast)
        rivals = all_that_fit
        if aim == "quality":
            best = min(choices.way_of(each.settings).quality for each in all_that_fit)
            rivals = [each for each in all_that_fit if choices.way_of(each.settings).quality == best]
        assert fit.forecast.total_s <= 1.05 * min(each.forecast.total_s for each in rivals)
        assert fit.settings.batch * fit.settings.accumulation == start.batch * start.accumulation


@pytest.mark.parametrize("number", range(4))
def test_as_quick_as_the_best_of_all_by_the_real_forecast(number: int) -> None:
    """The forecast keeps to what the search makes use of: more streamed blocks, less of the card and more time."""
    random = Random(SEED * 7 + number)
    job, machine = drawn(random)
    # Every third number of streamed blocks: its neighbours are as good.
    task = Task(job, machine, Wishes(), {}, Settings(rank=random.choice((8, 32))), forecast)
    choices = choices_for(job, machine, Wishes(), {}, task.start)
    limits = Limits.of(machine, Wishes())
    rivals = list(everything(replace(choices, swaps=(*choices.swaps[::3], 57)), limits, task.forecast))
    fit = solve(job, machine, start=task.start, alternatives=False)
    assert fit.fits or not rivals
    if rivals:
        assert not limits.lacking(fit.forecast)
        assert fit.forecast.total_s <= 1.05 * min(each.forecast.total_s for each in rivals)


def test_quality_first_where_time_is_equal() -> None:
    """A run of one minute more in ten is worth unquantised weights; one of half as long again is not."""
    fit = solved(job_at(), machine_with(RTX_4090))
    assert fit.settings.precision == "int8" and fit.settings.compute == "8bit"
    assert "Unquantised weights would take" in reason(fit, names.PRECISION)
    assert solved(job_at(), machine_with(RTX_4090), Wishes(aim="quality")).settings.precision == "bf16"


def test_small_cards_stream_and_say_so() -> None:
    fit = solved(job_at(), machine_with(RTX_4060, free_vram_gb=4.0))
    assert fit.fits and fit.settings.blocks_to_swap > 0
    assert fit.forecast.peak_vram_gb <= fit.limit_gb - fit.margin_gb
    assert "wait in host memory" in reason(fit, names.SWAP)
    fewer = replace(fit.settings, blocks_to_swap=fit.settings.blocks_to_swap - 1)
    assert rough_forecast(job_at(), fewer, machine_with(RTX_4060)).peak_vram_gb > fit.limit_gb - fit.margin_gb


def test_slow_is_told_from_fitting() -> None:
    assert solved(job_at(), machine_with(H100)).verdict == "fits"
    half_a_card = replace(RTX_3060, rates=CardRates(12, 48, 0, 180))
    slow = solved(job_at(), machine_with(half_a_card))
    assert slow.verdict == "fits, slowly" and slow.fits
    assert any("It fits, slowly" in text for text in slow.warnings)


def test_formats_only_where_the_card_has_them() -> None:
    """No bfloat16 and no fp8 on Turing, no fp8 products before Ada, no nf4 without bitsandbytes."""

    def precisions(machine: Machine) -> set[tuple[str, str]]:
        ways = choices_for(job_at(), machine, Wishes(), {}, Settings()).ways
        return {(way.precision, way.compute) for way in ways}

    turing = precisions(machine_with(RTX_2080))
    assert ("float32", "wide") in turing and ("int8", "8bit") in turing
    assert not {precision for precision, _ in turing} & {"bf16", "fp8"}
    assert "fp8" not in {precision for precision, _ in precisions(machine_with(RTX_3060))}
    ada = precisions(machine_with(RTX_4090))
    assert {("fp8", "8bit"), ("nf4", "wide"), ("bf16", "wide")} <= ada
    assert ("nf4", "wide") not in precisions(machine_with(RTX_4090, bitsandbytes=False))


def test_an_fp8_file_loses_nothing_by_staying_fp8() -> None:
    model = replace(DEV, stored="fp8_e4m3fn")
    ways = choices_for(replace(job_at(), model=model), machine_with(RTX_4090), Wishes(), {}, Settings()).ways
    assert (ways[0].precision, ways[0].compute, ways[0].quality) == ("fp8", "wide", 0)


def test_optimizers() -> None:
    assert (
        solved(job_at(), machine_with(RTX_4090), start=Settings(optimizer="adamw")).settings.optimizer == "adamw8bit"
    )
    without = machine_with(RTX_4090, bitsandbytes=False)
    assert solved(job_at(), without, start=Settings(optimizer="adamw8bit")).settings.optimizer == "adafactor"
    assert solved(job_at(), without, start=Settings(optimizer="prodigy")).settings.optimizer == "prodigy"


def test_what_is_fixed_stays_and_the_rest_goes_round_it() -> None:
    fixed = {names.SWAP: 30, names.PRECISION: "int8"}
    fit = solved(job_at(), machine_with(RTX_4090), fixed=fixed)
    assert (fit.settings.blocks_to_swap, fit.settings.precision) == (30, "int8")
    told = {each.key: each for each in fit.reasons if each.key}
    assert told[names.SWAP].fixed and not told[names.CHECKPOINTING].fixed
    assert fit.changes()[names.SWAP] == 30 and fit.changes()[names.PRECISION] == "int8"
    assert "" not in fit.changes()


@pytest.mark.parametrize(
    ("fixed", "words"),
    [
        ({"lora.alpha": 3}, "lora.alpha"),
        ({names.SWAP: 58}, "0 to 57"),
        ({names.SWAP: True}, "whole number"),
        ({names.PRECISION: "int4"}, "one of auto"),
        ({names.MODULATION: "yes"}, "true or false"),
    ],
)
def test_what_cannot_be_fixed_is_refused(fixed: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        solved(job_at(), machine_with(RTX_4090), fixed=fixed)
    assert words in str(caught.value)


def test_alternatives_are_solved() -> None:
    """Each with what it costs; those that do not fit say what lacks."""
    job, machine = job_at(), machine_with(RTX_4060)
    fit = solved(job, machine)
    rows = {each.key: {alternative.value: alternative for alternative in each.alternatives} for each in fit.reasons}
    assert {"auto (bf16)", "fp8", "nf4"} <= rows[names.PRECISION].keys()
    kept = rows[names.CHECKPOINTING]["none"]
    again = solved(job, machine, fixed={names.CHECKPOINTING: "none"}, alternatives=False)
    assert (kept.fits, kept.step_s) == (again.fits, again.forecast.step_s)
    tight = solved(job, machine_with(RTX_4060, free_vram_gb=3.5))
    refused = [each for row in tight.reasons for each in row.alternatives if not each.fits]
    assert refused and all("wanted" in each.note for each in refused)


def test_batches_keep_the_pictures_of_a_step() -> None:
    fit = solved(job_at(), machine_with(RTX_4060), start=Settings(batch=8))
    assert fit.settings.batch * fit.settings.accumulation == 8 and fit.settings.batch < 8


def test_host_memory_and_disk_are_limits_too() -> None:
    assert solved(job_at(), machine_with(RTX_4060, ram_gb=5.0)).verdict == "does not fit"
    small = machine_with(RTX_4090, cache_disk_gb=1.5, runs_disk_gb=1.5)
    fit = solved(job_at(), small)
    assert fit.fits and any("no room for a packed copy" in text for text in fit.warnings)
    full = machine_with(RTX_4090, cache_disk_gb=1.1, runs_disk_gb=1.1)
    held = solved(job_at(), full)
    assert not held.fits and any("GB of disk" in text for text in held.remedies)
    other = machine_with(RTX_4090, cache_disk_gb=1.0, runs_disk_gb=100.0, one_disk=False)
    beside = solved(job_at(), other)
    place = next(each for each in beside.reasons if each.label == "Caches")
    assert place.value == "with the runs" and beside.fits


def test_remedies_really_fit() -> None:
    """Nothing is advised that was not solved."""
    job, machine = job_at(), machine_with(RTX_4060, ram_gb=12.0, free_vram_gb=2.2)
    fit = solved(job, machine)
    assert not fit.fits and fit.remedies
    if any("512 px" in text for text in fit.remedies):
        assert solved(at_resolution(job, 512), machine).fits
    fixed = {names.PRECISION: "auto", names.SWAP: 0}
    held = solved(job_at(), machine_with(RTX_3060), fixed=fixed)
    assert not held.fits
    assert any("Leave memory.precision" in text for text in held.remedies)
    assert any("24 GB" in text or "32 GB" in text for text in held.remedies)


def test_what_others_need_of_the_card_is_left_to_them() -> None:
    alone = solved(job_at(), machine_with(RTX_4090))
    shared = solved(job_at(), machine_with(RTX_4090), Wishes(leave_gb=12.0))
    assert shared.limit_gb == pytest.approx(alone.limit_gb - 12.0)
    assert shared.forecast.peak_vram_gb <= shared.limit_gb - shared.margin_gb
    fixed = {names.PRECISION: "auto", names.SWAP: 0}
    held = solved(job_at(), machine_with(RTX_4090), Wishes(leave_gb=12.0), fixed=fixed)
    assert any("Leave others" in text for text in held.remedies)


def test_done_in_time() -> None:
    """A deadline outweighs quality; one that cannot be met is told."""
    job, machine = job_at(), machine_with(RTX_4090)
    exact = solved(job, machine, Wishes(aim="quality"))
    quick = solved(job, machine, Wishes(aim="fastest"))
    between = (exact.forecast.total_s + quick.forecast.total_s) / 2
    assert solved(job, machine, Wishes(aim="quality", done_in_s=between)).forecast.total_s <= between
    late = solved(job, machine, Wishes(done_in_s=quick.forecast.total_s / 2))
    assert late.fits and any("not be done in time" in text for text in late.warnings)
    told = next(text for text in late.warnings if "it would be done in" in text)
    side = int(told.split()[1])
    smaller = solved(at_resolution(job, side), machine, Wishes(aim="fastest"))
    assert smaller.forecast.total_s <= quick.forecast.total_s / 2


def test_what_was_measured_corrects_the_choice() -> None:
    """A card on which runs need a fifth more than forecast gets more streamed blocks; it is asked about rarely."""
    asked: list[Settings] = []

    def correction_for(machine: Machine, settings: Settings) -> Correction:
        asked.append(settings)
        return Correction(vram_factor=1.2, step_factor=2.0)

    job, machine = job_at(), machine_with(RTX_4060)
    plain = solve(job, machine, alternatives=False)
    fit = solve(job, machine, alternatives=False, estimate=learned(correction_for))
    assert fit.settings.blocks_to_swap > plain.settings.blocks_to_swap
    assert fit.forecast.step_s > 1.5 * plain.forecast.step_s
    assert fit.forecast.peak_vram_gb <= fit.limit_gb - fit.margin_gb
    assert len(asked) == len(set(asked)) < 60


def test_a_processor_is_named_as_such() -> None:
    fit = solved(job_at(512, 4, 2), machine_with(None, ram_gb=96.0))
    assert fit.fits and fit.settings.optimizer == "adamw" and fit.settings.blocks_to_swap == 0
    assert any("No GPU" in text for text in fit.warnings)


def test_schnell_is_warned_of() -> None:
    job = replace(job_at(), model=replace(DEV, variant="schnell", params=FLUX | {"guidance_embed": False}))
    assert any("schnell" in text for text in solved(job, machine_with(RTX_4090)).warnings)


def test_plans_are_quick() -> None:
    """Few forecasts are made: that is what keeps a plan below two seconds."""
    made = 0

    def counted(job: Job, settings: Settings, machine: Machine) -> object:
        nonlocal made
        made += 1
        return rough_forecast(job, settings, machine)

    began = time.process_time()
    solve(job_at(), machine_with(RTX_4060), estimate=counted)  # type: ignore[arg-type]
    assert made < 1500
    assert time.process_time() - began < 2.0


def test_resolutions_keep_shapes() -> None:
    job = replace(job_at(), buckets=(Bucket(1024, 1024, 3), Bucket(1216, 832, 2)))
    assert resolution_of(job) == 1024
    small = at_resolution(job, 512)
    assert small.buckets == (Bucket(512, 512, 3), Bucket(640, 448, 2)) and resolution_of(small) in (512, 576)
