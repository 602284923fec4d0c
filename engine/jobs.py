"""Single jobs that need the engine but are no training run: filling caches, drawing, blending, measuring.

Importing this module does not import torch; calling into it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config import PromptConfig, RunConfig
from engine.events import EventLog, Measured, Progress
from engine.files import RunFolder, default_cache_dir, keep_code_in

if TYPE_CHECKING:
    from engine.lora.adapter import Adapter
    from engine.lora.blend import Blend
    from engine.training.device import Compute
    from engine.training.lean import Lean
    from engine.training.prepare import Base


def fill_caches(config: RunConfig, events: EventLog, should_stop: Callable[[], bool] = lambda: False) -> bool:
    """Scan the dataset and fill the caches of latents and embeddings; False if stopped before the end.

    Raises:
        EngineError: as when a run starts.
    """
    keep_code_in((config.cache_dir or default_cache_dir()) / "code")
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
    keep_code_in((config.cache_dir or default_cache_dir()) / "code")
    from engine.training.device import compute_for
    from engine.training.entries import Entries
    from engine.training.kit import note
    from engine.training.pictures import Painter
    from engine.training.prepare import Stopped, check_base, embed_texts, open_store, prompt_captions
    from engine.training.products import take_products

    base = check_base(config)
    compute = compute_for(config)
    store = open_store(config)
    captions = prompt_captions(prompts, config.sampling.cfg)
    try:
        texts = embed_texts(config, base, compute, captions, store, events, should_stop)
    except Stopped:
        return []
    events.append(Progress("load transformer", 0, 1))
    lean = _with_lora(config, base, compute, lora, partial(note, events))
    with closing(lean):
        events.append(Progress("load transformer", 1, 1))
        for text in (*lean.notes, take_products(lean, lora)):
            if text:
                note(events, text)
        entries = Entries(store, {}, texts, config.seed)
        painter = Painter(
            config, base, compute, events, lambda text: entries.batch_text([text]), should_stop, lean.conditioning
        )
        stem, extra = (lora.stem, lora.name) if lora else ("base", "")
        return painter.draw(
            lean.transformer, prompts, lambda _, request: _free_name(out_dir, stem, request.seed), {"lora": extra}
        )


def blend_loras(
    files: Sequence[Path],
    weights: Sequence[float],
    out: Path,
    events: EventLog,
    should_stop: Callable[[], bool] = lambda: False,
) -> Blend | None:
    """Average LoRA files into the new file ``out``; None if stopped before it was written.

    Raises:
        EngineError: files that do not belong together, or one that cannot be read or written.
    """
    from engine.lora.blend import blend_files

    def step(done: int, total: int) -> bool:
        events.append(Progress("blend", done, total))
        return not should_stop()

    return blend_files(files, weights, out, f"lorakiln {version('lorakiln')}", time.time(), step)


def measure_loras(
    config: RunConfig,
    folder: Path,
    files: Sequence[Path],
    events: EventLog,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Measured]:
    """Measure ``files`` as the run in ``folder`` measured itself; fewer results than files if stopped.

    Raises:
        EngineError: the run measures nothing, a file cannot be loaded, or as when a run starts.
    """
    keep_code_in((config.cache_dir or default_cache_dir()) / "code")
    from engine.training.remeasure import measure_files

    return measure_files(config, RunFolder(folder), files, events, should_stop)


def _with_lora(
    config: RunConfig, base: Base, compute: Compute, lora: Path | None, say: Callable[[str], None]
) -> Lean:
    from engine.lora.adapter import make_adapters
    from engine.lora.formats import load_lora
    from engine.training.lean import build_lean

    adapters: dict[str, Adapter] = {}
    if lora is not None:
        state, targets = load_lora(lora)
        loaded = make_adapters(targets, config.lora, config.seed, compute.device)
        loaded.load_state(state)
        adapters = loaded.adapters
    return build_lean(config, base, compute, adapters, say=say)


def _free_name(folder: Path, stem: str, seed: int) -> Path:
    number = 0
    while (path := folder / f"{stem}-seed{seed}{f'-{number}' if number else ''}.png").exists():
        number += 1
    return path
