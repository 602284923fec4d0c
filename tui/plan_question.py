"""What `kiln plan` is asked: the job, the machine and the wishes that its options and files describe.

Stands apart from the command so that the command only asks, prints and writes. Reads files and the machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.config_file import load_config
from engine.dataset.decoder import Decoder
from engine.dataset.scan import scan_dataset
from engine.errors import ConfigError
from engine.files import default_cache_dir
from engine.text import safe_text
from profiles.advice import Advice, advice
from profiles.choices import ACCUMULATION, BATCH, RANK, TARGETS
from profiles.job import job_for, job_of, model_infos, settings_of
from profiles.machine import TAKEN_RAM_GB, imagined_machine, read_machine
from profiles.recipes import Recipe, all_recipes
from profiles.schema import Job, Machine, Settings, Wishes
from profiles.tiers import PROMPTS, Tier, all_tiers
from tui.units import short_time

JOB_OPTIONS = ("model", "resolution", "images", "repeats", "epochs", "rank", "batch")
ELSEWHERE = "`kiln plan --gpu NAME` or `--vram GB` plans for a machine with another card."


KEPT_OFF = 'training.device = "cpu" in the file keeps the run off any card.'


@dataclass(frozen=True)
class Question:
    """Everything that the solver is given, and what the answer is headed with.

    Attributes:
        config: of RUN.toml; None where none was given.
    """

    job: Job
    machine: Machine
    wishes: Wishes
    fixed: Mapping[str, Any]
    start: Settings
    title: str
    config: RunConfig | None = None
    advice: tuple[Advice, ...] = ()


def question_of(args: argparse.Namespace) -> Question:
    """What the command line asks.

    Raises:
        ConfigError: a recipe, tier, card or file that is not known or cannot be used.
        ModelFileError: a model file is missing or of another kind.
        DatasetError: nothing can be trained on.
    """
    config = load_config(args.file) if args.file else None
    if config is not None:
        _refuse_a_second_job(args)
    recipe, tier = _recipe(args.recipe), _tier(args.tier)
    machine = tier.machine() if tier else _machine(args, config)
    if config is not None:
        job, start, title = _from_file(args.file, config, machine)
    else:
        job, start, title = _described(args, recipe)
    told = advice(config, recipe, job.pictures) if config and recipe else ()
    left = (args.done_by - datetime.now()).total_seconds() if args.done_by else 0.0
    wishes = Wishes(aim=args.aim, leave_gb=args.leave, done_in_s=left, nf4=not args.no_nf4)
    return Question(job, machine, wishes, _of_tier(tier, args) | dict(args.set), start, title, config, told)


# The job


def _refuse_a_second_job(args: argparse.Namespace) -> None:
    """A file says what the job is: what was described besides would be passed over silently."""
    given = [name for name in JOB_OPTIONS if getattr(args, name) is not None]
    if given:
        words = ", ".join(f"--{name}" for name in given)
        keys = "--set lora.rank=... and --set training.batch_size=... change what can be changed without it."
        raise ConfigError("Two jobs were described", f"{safe_text(args.file.name)} and {words}", keys)


def _described(args: argparse.Namespace, recipe: Recipe | None) -> tuple[Job, Settings, str]:
    images = args.images or (recipe.file.pictures.best if recipe else 20)
    band = recipe.band(images) if recipe else None
    lora = recipe.table.get("lora", {}) if recipe else {}
    repeats = args.repeats or (band.repeats if band else 1)
    epochs = args.epochs or (band.epochs if band else 100)
    rank, batch = args.rank or int(lora.get("rank", 16)), args.batch or 1
    resolution = args.resolution or 1024
    model = args.model or "flux1-dev"
    every = band.every if band and epochs == band.epochs else max(epochs // 10, 1)
    job = job_for(model, resolution, images, repeats, epochs, prompts=PROMPTS, every=every)
    words = [model, f"{resolution} px", f"rank {rank}", f"batch {batch}", f"{images} pictures"]
    words += [f"{repeats} repeats"] if repeats > 1 else []
    words += [f"{epochs} epochs", *([f"recipe {recipe.file.title}"] if recipe else [])]
    return job, Settings(rank=rank, batch=batch), ", ".join(words)


def _from_file(path: Path, config: RunConfig, machine: Machine) -> tuple[Job, Settings, str]:
    """The job of a run's file: headers of its model files and pictures are read."""
    infos = model_infos(config)
    with Decoder(config.dataset.max_megapixels) as decoder:
        scan = scan_dataset(config.dataset, decoder)
    for problem in scan.errors:
        print(f"not counted: {safe_text(problem.path)}: {safe_text(problem.message)}", file=sys.stderr)
    info, training = infos["transformer"], config.training
    words = [path.name, f"{info.family}-{info.variant}", f"{config.dataset.resolution} px"]
    words += [f"rank {config.lora.rank}", f"batch {training.batch_size * training.accumulation}"]
    words += [f"{len(scan.samples)} pictures", *([f"{training.epochs} epochs"] if training.epochs else [])]
    return job_of(config, scan.samples, infos), settings_of(config, machine), ", ".join(words)


def _recipe(name: str | None) -> Recipe | None:
    """The recipe of that name; the user's own files that cannot be used are told on stderr."""
    if name is None:
        return None
    recipes, problems = all_recipes()
    _tell_skipped(problems)
    if name not in recipes:
        raise ConfigError("No such recipe", safe_text(name, 80), f"There are {', '.join(recipes)}.")
    return recipes[name]


def _tell_skipped(problems: Sequence[ConfigError]) -> None:
    for problem in problems:
        print(f"skipped: {safe_text(problem, 2000, newlines=True)}", file=sys.stderr)


# The machine


def _machine(args: argparse.Namespace, config: RunConfig | None) -> Machine:
    kept_off = config is not None and config.training.device == "cpu"
    if args.gpu or args.vram:
        there = imagined_machine(args.vram, args.ram, args.gpu)
        return replace(there, remarks=(*there.remarks, KEPT_OFF)) if kept_off else there
    cache = config.cache_dir if config and config.cache_dir else default_cache_dir()
    here = read_machine(cache, config.runs_dir if config else Path("runs"))
    if args.ram:
        here = replace(here, ram_gb=args.ram, free_ram_gb=max(args.ram - TAKEN_RAM_GB, 0.0))
    if kept_off:
        return replace(here, card=None, free_vram_gb=0.0, remarks=(*here.remarks, KEPT_OFF))
    return here if here.card is not None else replace(here, remarks=(*here.remarks, ELSEWHERE))


def _tier(name: str | None) -> Tier | None:
    if name is None:
        return None
    tiers = known_tiers()
    if name not in tiers:
        raise ConfigError("No such tier", safe_text(name, 80), f"There are {', '.join(tiers)}.")
    return tiers[name]


def known_tiers() -> dict[str, Tier]:
    """Every tier by name; the user's own files that cannot be used are told on stderr."""
    tiers, problems = all_tiers()
    _tell_skipped(problems)
    return tiers


def _of_tier(tier: Tier | None, args: argparse.Namespace) -> dict[str, Any]:
    """The settings of a user's own tier, but for what the job decides; for those that ship the job is solved anew."""
    if tier is None or not tier.own:
        return {}
    jobs_own = {RANK, TARGETS, BATCH, ACCUMULATION} if args.file or args.recipe or args.rank or args.batch else set()
    return {key: value for key, value in tier.fixed.items() if key not in jobs_own}


def tier_lines(tiers: Mapping[str, Tier]) -> Iterator[str]:
    """The tiers as a table."""
    yield f"{'TIER':12}  {'CARD':24}  {'HOST':>6}  {'STEP':>7}  SETTINGS"
    for name, tier in tiers.items():
        machine, memory, forecast = tier.file.machine, tier.file.config.memory, tier.file.forecast
        card = safe_text(machine.card or f"any of {machine.vram_gb:g} GB", 24)
        step = short_time(forecast.step_s) if forecast else "-"
        told = f"{memory.precision}, {memory.blocks_to_swap} streamed" + (" (yours)" if tier.own else "")
        host = f"{machine.ram_gb:.0f} GB" if machine.ram_gb else "-"
        yield f"{name:12}  {card:24}  {host:>6}  {step:>7}  {told}"
