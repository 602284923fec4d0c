"""What a configuration would train, in a few lines of label and text: shown before a run is started.

Comes in: the configuration and the dataset's rows as far as they are known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.files import next_run_folder
from engine.text import safe_text
from tui.setup.steps import steps_of

if TYPE_CHECKING:
    from engine.config import RunConfig
    from tui.catalog import Row

Line = tuple[str, str]


def steps_in_words(config: RunConfig, rows: Sequence[Row]) -> str:
    """How many steps the run will have, as far as the pictures' sizes are known."""
    used = [row for row in rows if row.severity != "error" and not row.excluded]
    concept, others = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for row in used:
        if row.bucket is None:
            return "counting steps"
        (others if row.regularization else concept)[row.bucket] += row.seen
    of_class = sum(row.regularization for row in used)
    steps = steps_of(concept, others, len(used) - of_class, of_class, config)
    return f"{'' if steps.exact else 'about '}{steps.total:,} steps"


def plan_lines(config: RunConfig, rows: Sequence[Row]) -> list[Line]:
    """The configuration in words, the most important first; every text is safe to show."""
    training, lora, optimizer = config.training, config.lora, config.optimizer
    batch = training.batch_size * training.accumulation
    length = f"{training.epochs} epochs of batch {batch}" if training.epochs else f"batch {batch}"
    warmup = f", {config.schedule.warmup_steps} to warm up" if config.schedule.warmup_steps else ""
    trigger = config.dataset.captions.trigger_word
    alpha = lora.rank if lora.alpha is None else lora.alpha
    lines = [
        ("model", config.model.transformer.name),
        ("pictures", pictures_in_words(rows) + (f', trigger word "{trigger}"' if trigger else "")),
        ("length", f"{length}: {steps_in_words(config, rows)}"),
        ("LoRA", f"rank {lora.rank}, alpha {alpha:g}, at {config.dataset.resolution} px"),
        ("rate", f"{optimizer.learning_rate:g} {config.schedule.name}{warmup}, {optimizer.name}"),
        ("samples", _samples(config)),
        ("goes to", str(next_run_folder(config.runs_dir, config.name))),
    ]
    return [(label, safe_text(text, 300)) for label, text in lines]


def pictures_in_words(rows: Sequence[Row]) -> str:
    """How many there are, and how many cannot be used or lack a caption."""
    total = len(rows)
    rows = [row for row in rows if not row.excluded]
    broken = sum(row.severity == "error" for row in rows)
    bare = sum(row.caption is None and row.severity != "error" for row in rows)
    of_class = sum(row.regularization and row.severity != "error" for row in rows)
    words = [f"{len(rows) - broken - of_class:,}"]
    words += [f"{of_class:,} of the class"] if of_class else []
    words += [f"{bare} without caption"] if bare else []
    words += [f"{broken} unusable"] if broken else []
    words += [f"{total - len(rows):,} excluded"] if total > len(rows) else []
    return ", ".join(words)


def _samples(config: RunConfig) -> str:
    sampling = config.sampling
    if not sampling.prompts:
        return "none"
    when = f"every {sampling.every_epochs} epochs" if sampling.every_epochs > 1 else "every epoch"
    if not sampling.every_epochs:
        when = f"every {sampling.every_steps} steps" if sampling.every_steps else "at the start only"
    strengths = len(sampling.strengths)
    at = f" at {strengths} strengths" if strengths > 1 else ""
    return f"{len(sampling.prompts)} prompts{at} {when}"
