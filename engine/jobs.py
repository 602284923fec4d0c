"""Single jobs that need the engine but are no training run: filling caches, drawing, blending, measuring.

Importing this module does not import torch; calling into it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config import PromptConfig, RunConfig
from engine.config_file import load_config
from engine.events import EventLog, Measured, PictureLosses, Progress
from engine.files import RunFolder, default_cache_dir, keep_code_in
from engine.locks import lock_folder

if TYPE_CHECKING:
    from engine.lora.blend import Blend


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
    strengths: Sequence[float] = (1.0,),
) -> list[Path]:
    """Draw ``prompts`` with the base model, or with ``lora`` on it at each of ``strengths``.

    Returns the files written. They are named by what stands in ``out_dir`` already: nothing is overwritten.

    Raises:
        EngineError: a file cannot be loaded or written.
    """
    keep_code_in((config.cache_dir or default_cache_dir()) / "code")
    from engine.training.by_hand import draw_by_hand
    from engine.training.prepare import Stopped

    try:
        return draw_by_hand(config, lora, prompts, out_dir, events, should_stop, strengths)
    except Stopped:
        return []


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


def measure_pictures(
    config: RunConfig,
    folder: Path,
    file: Path,
    events: EventLog,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[PictureLosses]:
    """Measure every training picture of the run in ``folder`` with its LoRA ``file`` under the same noise.

    What is found is told in the run's events, as if the run had measured it; none is if stopped.

    Raises:
        RunError: another process holds the run.
        EngineError: a file cannot be loaded, or as when a run starts.
    """
    run = RunFolder(folder)
    keep_code_in((config.cache_dir or default_cache_dir()) / "code")
    from engine.training.remeasure import measure_pictures_of

    with lock_folder(run):
        return measure_pictures_of(config, run, file, events, should_stop)


def sample_epochs(
    folder: Path,
    epochs: Mapping[int, tuple[int, Path | None]],
    strengths: Sequence[float],
    events: EventLog,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """Draw the sample prompts of the run in ``folder`` with epochs of it, for its grid of pictures.

    What is drawn stands among the run's samples and is told in its events, as if it had been drawn while it was
    trained; so nothing else may train there meanwhile. A picture that is there already is not drawn again.

    Args:
        epochs: by number the step and the LoRA file; None, for epoch 0, draws the base model.
        strengths: factors on the LoRA.
        events: where progress is told; not the run's own.

    Returns:
        The files written.

    Raises:
        RunError: another process holds the run.
        EngineError: a file cannot be loaded or written.
    """
    run = RunFolder(folder)
    config = load_config(run.config)
    keep_code_in((config.cache_dir or default_cache_dir()) / "code")
    from engine.training.by_hand import EpochFile, draw_epochs
    from engine.training.prepare import Stopped

    files = [EpochFile(epoch, step, lora) for epoch, (step, lora) in sorted(epochs.items())]
    with lock_folder(run):
        try:
            return draw_epochs(config, run, files, strengths, events, should_stop)
        except Stopped:
            return []
