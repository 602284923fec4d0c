"""Single jobs that need the engine but are no training run: filling the caches, drawing pictures.

Importing this module does not import torch; calling into it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config import PromptConfig, RunConfig
from engine.events import EventLog, Progress

if TYPE_CHECKING:
    from torch import nn

    from engine.training.device import Compute
    from engine.training.prepare import Base


def fill_caches(config: RunConfig, events: EventLog, should_stop: Callable[[], bool] = lambda: False) -> bool:
    """Scan the dataset and fill the caches of latents and embeddings; False if stopped before the end.

    Raises:
        EngineError: as when a run starts.
    """
    from engine.training.device import compute_for
    from engine.training.prepare import Stopped, check_base, prepare

    base = check_base(config)
    try:
        prepare(config, base, compute_for(config), events, should_stop)
    except Stopped:
        return False
    return True


def sample_pictures(
    config: RunConfig,
    lora: Path | None,
    prompts: Sequence[PromptConfig],
    out_dir: Path,
    events: EventLog,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """Draw ``prompts`` with the base model, and with ``lora`` on it if given; returns the files written.

    Files are named by what stands in ``out_dir`` already: nothing is overwritten.

    Raises:
        EngineError: a file cannot be loaded or written.
    """
    from engine.training.device import compute_for
    from engine.training.entries import Entries
    from engine.training.pictures import Painter
    from engine.training.prepare import Stopped, check_base, embed_texts, open_store, prompt_captions

    base = check_base(config)
    compute = compute_for(config)
    store = open_store(config)
    captions = prompt_captions(prompts, config.sampling.cfg)
    try:
        texts = embed_texts(config, base, compute, captions, store, events, should_stop)
    except Stopped:
        return []
    events.append(Progress("load transformer", 0, 1))
    transformer = _with_lora(config, base, compute, lora)
    events.append(Progress("load transformer", 1, 1))
    entries = Entries(store, {}, texts, config.seed)
    painter = Painter(config, base, compute, events, lambda text: entries.batch_text([text]), should_stop)
    stem, extra = (lora.stem, lora.name) if lora else ("base", "")
    return painter.draw(
        transformer, prompts, lambda _, request: _free_name(out_dir, stem, request.seed), {"lora": extra}
    )


def _with_lora(config: RunConfig, base: Base, compute: Compute, lora: Path | None) -> nn.Module:
    from engine.lora.adapter import inject
    from engine.lora.formats import load_lora

    transformer = base.family.load_transformer(config.model, compute.device, compute.dtype)
    if lora is not None:
        state, targets = load_lora(lora)
        inject(transformer, targets, config.lora, config.seed).load_state(state)
    return transformer


def _free_name(folder: Path, stem: str, seed: int) -> Path:
    number = 0
    while (path := folder / f"{stem}-seed{seed}{f'-{number}' if number else ''}.png").exists():
        number += 1
    return path
