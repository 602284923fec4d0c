"""Sample pictures while a run goes on: prompts to PNG files and events.

Draws nothing from the run's random numbers and leaves adapter, modes and devices as found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.config import PromptConfig, RunConfig
from engine.events import EventLog, Progress, SampleSaved
from engine.models.autoencoder import Autoencoder
from engine.models.family import TextEmbeds
from engine.text import safe_text
from engine.training.device import Compute
from engine.training.prepare import Base
from engine.training.sampling import PictureRequest, draw_latents, save_png


def request_for(prompt: PromptConfig, config: RunConfig) -> PictureRequest:
    """A prompt with the run's defaults filled in."""
    sampling = config.sampling
    return PictureRequest(
        prompt=prompt.prompt,
        negative=prompt.negative,
        seed=prompt.seed,
        width=prompt.width or sampling.width,
        height=prompt.height or sampling.height,
        steps=prompt.steps or sampling.steps,
        guidance=sampling.guidance if prompt.guidance is None else prompt.guidance,
        cfg=sampling.cfg,
    )


@dataclass
class Painter:
    """Draws pictures with the model as it stands.

    Attributes:
        embed: gives the embedding (batch of one) of a text that the caches hold.
        should_stop: asked between sampling steps.
    """

    config: RunConfig
    base: Base
    compute: Compute
    events: EventLog
    embed: Callable[[str], TextEmbeds]
    should_stop: Callable[[], bool]
    _autoencoder: Autoencoder | None = None

    def draw(
        self,
        transformer: nn.Module,
        prompts: Sequence[PromptConfig],
        name: Callable[[int, PictureRequest], Path],
        extra: dict[str, Any],
        step: int = 0,
        epoch: int = 0,
    ) -> list[Path]:
        """Draw ``prompts`` one after the other; a stop asked meanwhile ends early.

        Args:
            name: gives a picture's file by its number and request, asked just before it is drawn.
            extra: written into every file beside the request.

        Returns:
            The files written.
        """
        written: list[Path] = []
        for index, prompt in enumerate(prompts):
            request = request_for(prompt, self.config)
            self.events.append(Progress("sample", index, len(prompts), safe_text(request.prompt, 200)))
            path = name(index, request)
            if not self.picture(transformer, request, path, extra):
                break
            written.append(path)
            self.events.append(
                SampleSaved(str(path), step, epoch, index, safe_text(request.prompt, 500), request.seed)
            )
        self.events.append(Progress("sample", len(written), len(prompts)))
        return written

    def picture(self, transformer: nn.Module, request: PictureRequest, path: Path, extra: dict[str, Any]) -> bool:
        """Draw one picture into ``path``; False if stopped before it was done.

        Raises:
            DiskError: it cannot be written.
        """
        text = self.embed(request.prompt)
        negative = self.embed(request.negative) if request.cfg != 1.0 else None
        with self.compute.autocast():
            latents = draw_latents(
                self.base.family,
                transformer,
                text.to(self.compute.device),
                negative.to(self.compute.device) if negative is not None else None,
                request,
                self.base.variant,
                self.compute.device,
                should_stop=self.should_stop,
                masked=self.config.model.t5_mask,
            )
        if latents is None:
            return False
        parameters = request.parameters() | extra | {"run": self.config.name}
        save_png(path, self._decode(latents), parameters)
        return True

    def _decode(self, latents: Tensor) -> Tensor:
        """Pixels (3, H, W) in [-1, 1]; the autoencoder visits the GPU only for this."""
        if self._autoencoder is None:
            self._autoencoder = self.base.family.load_autoencoder(
                self.config.model, torch.device("cpu"), torch.float32
            )
        self._autoencoder.to(self.compute.device)
        try:
            with torch.inference_mode():
                return self._autoencoder.decode(latents.float())[0].cpu()
        finally:
            self._autoencoder.to(torch.device("cpu"))
            self.compute.free_unused()
