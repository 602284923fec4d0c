"""What sample pictures say of the LoRA: nearly a copy of a training picture? how like them, how like its prompt?

Pictures that were drawn go in, events come out. The training pictures are looked at once, when the first samples are
there. Scores are the user's own models', loaded for a round of samples and let go of again. Nothing here reaches the
training: no random state is touched, and what cannot be compared is told and left out.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import RunConfig
from engine.dataset.copies import CopyAlarm
from engine.dataset.decoder import Decoder
from engine.dataset.scan import Sample
from engine.errors import DatasetError, EngineError
from engine.events import EventLog, Log, NearCopy, Progress, SampleSaved, Scored
from engine.memory.exhaustion import ran_out
from engine.text import safe_text
from engine.training.device import Compute

if TYPE_CHECKING:
    from engine.models.scorers import ClipScorer, DinoScorer

Pixels = NDArray[np.uint8]

COMPARED = 1000
"""Training pictures that samples are compared with at most, taken evenly: each costs a look at its file."""

SMALL = 128
"""Pixels of the longer side at which copies are looked for."""

REFERENCES, REFERENCE_SIDE = 64, 512
"""Training pictures whose mean scores are told against, and the pixels of their longer side."""

SPARE_GB = 2.0
"""Memory that a GPU must have left beside a scoring model; else the processor runs it."""


class Evidence:
    """Looks at one run's samples.

    Args:
        samples: the pictures that are trained on.
    """

    def __init__(self, config: RunConfig, samples: Sequence[Sample], compute: Compute, events: EventLog) -> None:
        self.config = config
        self.compute = compute
        self.events = events
        own = {sample.path: None for sample in samples if not sample.regularization}
        self._paths = _evenly(list(own), COMPARED)
        # Kept open: starting its process takes longer than reading a round of samples.
        self._decoder = Decoder(config.dataset.max_megapixels)
        self._alarm: CopyAlarm | None = None
        self._known: list[Path] = []
        self._means: dict[str, Tensor] = {}

    def look(self, drawn: Sequence[SampleSaved], should_stop: Callable[[], bool] = lambda: False) -> None:
        """Compare pictures that were drawn with those trained on, and tell what was found.

        The base model has seen none of them: what it draws is scored, and never called a copy.
        """
        sampling = self.config.sampling
        learned = [one for one in drawn if one.epoch] if sampling.copy_alarm else []
        scored = drawn if sampling.score_clip is not None or sampling.score_dino is not None else ()
        if not self._paths or not (learned or scored):
            return
        try:
            if learned:
                self._look_for_copies(learned, should_stop)
            if scored and not should_stop():
                self._score(scored)
        except EngineError as err:
            self._tell(str(err))
        except RuntimeError as err:
            if not ran_out(err):
                raise
            self._tell(str(err))
        finally:
            gc.collect()
            self.compute.free_unused()

    def _tell(self, reason: str) -> None:
        text = f"Samples were not compared with the training pictures: {reason}".replace("\n", "; ")
        self.events.append(Log("warning", safe_text(text, 2000)))

    def close(self) -> None:
        """Let the decoder's process go."""
        self._decoder.close()

    def _look_for_copies(self, drawn: Sequence[SampleSaved], should_stop: Callable[[], bool]) -> None:
        if self._alarm is None:
            found = self._pictures(self._paths, SMALL, should_stop)
            if should_stop():
                return
            self._known = [path for path, _ in found]
            self._alarm = CopyAlarm([pixels for _, pixels in found])
        for one in drawn:
            near = self._alarm.nearest(self._decoder.thumbnail(Path(one.path), SMALL))
            if near is not None and near.copied:
                self.events.append(NearCopy(one.path, str(self._known[near.number]), round(near.distance, 4)))

    def _score(self, drawn: Sequence[SampleSaved]) -> None:
        # Imported here: seconds that runs without scores need not pay.
        from engine.models.scorers import ClipScorer, DinoScorer

        pictures = [self._decoder.thumbnail(Path(one.path), REFERENCE_SIDE) for one in drawn]
        sampling = self.config.sampling
        if sampling.score_clip is not None:
            clip = ClipScorer(sampling.score_clip, self._device(sampling.score_clip))
            vectors = clip.pictures(pictures)
            self._tell_scores(drawn, "clip_image", vectors @ self._mean("clip_image", clip))
            prompts = clip.texts([self._prompt(one) for one in drawn])
            self._tell_scores(drawn, "clip_text", (vectors * prompts).sum(dim=-1))
            del clip
        if sampling.score_dino is not None:
            dino = DinoScorer(sampling.score_dino, self._device(sampling.score_dino))
            self._tell_scores(drawn, "dino", dino.pictures(pictures) @ self._mean("dino", dino))

    def _tell_scores(self, drawn: Sequence[SampleSaved], name: str, values: Tensor) -> None:
        for one, value in zip(drawn, values.tolist(), strict=True):
            self.events.append(Scored(one.path, name, round(value, 4)))

    def _prompt(self, drawn: SampleSaved) -> str:
        """The whole prompt, which an event may have cut."""
        prompts = self.config.sampling.prompts
        whole = prompts[drawn.index].prompt if drawn.index < len(prompts) else ""
        return whole if whole.startswith(drawn.prompt[:400]) else drawn.prompt

    def _mean(self, name: str, scorer: ClipScorer | DinoScorer) -> Tensor:
        """The middle of the training pictures, of length 1: each counts alike."""
        if name not in self._means:
            found = self._pictures(_evenly(self._paths, REFERENCES), REFERENCE_SIDE)
            if not found:
                raise DatasetError("No training picture can be read any more", "", "Put the dataset's folder back.")
            mean = scorer.pictures([pixels for _, pixels in found]).mean(dim=0)
            self._means[name] = mean / mean.norm().clamp_min(1e-12)
        return self._means[name]

    def _pictures(
        self, paths: Sequence[Path], side: int, should_stop: Callable[[], bool] = lambda: False
    ) -> list[tuple[Path, Pixels]]:
        """Those that can be read: one that is removed while a run goes on is compared with no more."""
        found: list[tuple[Path, Pixels]] = []
        unread = 0
        for number, path in enumerate(paths):
            if should_stop():
                return []
            self.events.append(Progress("look at pictures", number, len(paths)))
            try:
                found.append((path, self._decoder.thumbnail(path, side, self.config.dataset.background)))
            except DatasetError:
                unread += 1
        self.events.append(Progress("look at pictures", len(paths), len(paths)))
        if unread:
            text = f"Samples are not compared with {unread} of the training pictures, which cannot be read any more"
            self.events.append(Log("warning", text))
        return found

    def _device(self, folder: Path) -> torch.device:
        """The GPU where there is room for a model, else the processor."""
        device = self.compute.device
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if free > 2 * (folder / "model.safetensors").stat().st_size + SPARE_GB * 2**30:
                return device
        return torch.device("cpu")


def _evenly(paths: Sequence[Path], most: int) -> list[Path]:
    """At most ``most`` of ``paths``, from all of their length."""
    step = max(1, -(-len(paths) // most))
    return list(paths[::step])
