"""Sample pictures while a run goes on: prompts to PNG files and events.

Draws nothing from the run's random numbers and leaves adapter, modes and devices as found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.config import PromptConfig, RunConfig
from engine.events import EventLog, Log, Progress, SampleSaved, SteppedDown
from engine.memory.conditioning import Conditioning
from engine.memory.exhaustion import first_line, ran_out
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


@dataclass(frozen=True)
class Asked:
    """A picture to draw: the prompt, its number among the prompts, and the factor on the LoRA."""

    index: int
    prompt: PromptConfig
    strength: float = 1.0


def ask(prompts: Sequence[PromptConfig], strengths: Sequence[float] = (1.0,)) -> list[Asked]:
    """Every prompt at every strength: all prompts at the first one, then all at the next."""
    return [Asked(index, prompt, one) for one in dict.fromkeys(strengths) for index, prompt in enumerate(prompts)]


def told(asked: Asked, path: Path, step: int, epoch: int) -> SampleSaved:
    """The event that tells of a picture."""
    text, prompt = safe_text(asked.prompt.prompt, 500), asked.prompt
    return SampleSaved(str(path), step, epoch, asked.index, text, prompt.seed, prompt.kind, asked.strength)


@contextmanager
def unchanged(strength: float) -> Iterator[None]:
    """Where there is no LoRA, or one that is only drawn as it is."""
    yield


@dataclass
class Painter:
    """Draws pictures with the model as it stands.

    Attributes:
        embed: gives the embedding (batch of one) of a text that the caches hold.
        should_stop: asked between sampling steps.
        conditioning: computes a picture's modulation ahead; None lets the transformer do so step by step.
        spare: leaves what only training needs off the GPU while inside; asked for where memory runs out.
    """

    config: RunConfig
    base: Base
    compute: Compute
    events: EventLog
    embed: Callable[[str], TextEmbeds]
    should_stop: Callable[[], bool]
    conditioning: Conditioning | None = None
    spare: Callable[[], AbstractContextManager[None]] = nullcontext
    _autoencoder: Autoencoder | None = None

    def draw(
        self,
        transformer: nn.Module,
        asked: Sequence[Asked],
        name: Callable[[Asked, PictureRequest], Path],
        extra: dict[str, Any],
        step: int = 0,
        epoch: int = 0,
        strength: Callable[[float], AbstractContextManager[None]] = unchanged,
    ) -> list[SampleSaved]:
        """Draw what is ``asked`` for, one after the other; a stop asked meanwhile ends early.

        A picture that memory does not suffice for is told and left out.

        Args:
            name: gives a picture's file, asked just before it is drawn.
            extra: written into every file beside the request.
            strength: lets the LoRA act with a factor meanwhile.

        Returns:
            What was drawn, as it was told.
        """
        drawn: list[SampleSaved] = []
        for number, one in enumerate(asked):
            request = request_for(one.prompt, self.config)
            self.events.append(Progress("sample", number, len(asked), safe_text(request.prompt, 200)))
            path = name(one, request)
            more = extra | ({} if one.strength == 1.0 else {"strength": one.strength})
            with strength(one.strength):
                done = self._somehow(partial(self.picture, transformer, request, path, more), one.index, step)
            if done is None:
                continue
            if not done:
                break
            drawn.append(told(one, path, step, epoch))
            self.events.append(drawn[-1])
        self.events.append(Progress("sample", len(drawn), len(asked)))
        return drawn

    def _somehow(self, draw: Callable[[], bool], index: int, step: int) -> bool | None:
        """Draw, with more room each time memory runs out; None where there never is enough."""
        reason = ""
        for room, change in (
            (nullcontext, ("", "", "")),
            (nullcontext, ("empty_cache", "", "")),
            (self.spare, ("optimizer_states", "gpu", "host")),
        ):
            if reason:
                self.compute.free_unused()
                self.events.append(SteppedDown("sampling", step, *change, reason))
                text = f"Sample {index + 1} at step {step} is drawn again with more memory free: {reason}"
                self.events.append(Log("warning", text))
            try:
                with room():
                    return draw()
            except RuntimeError as err:
                if not ran_out(err):
                    raise
                reason = first_line(err)
        self.compute.free_unused()
        text = f"Sample {index + 1} at step {step} is left out, memory does not suffice: {reason}"
        self.events.append(Log("warning", text))
        return None

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
                conditioning=self.conditioning,
            )
        if latents is None:
            return False
        parameters = request.parameters() | extra | {"run": self.config.name}
        save_png(path, self._decode(latents), parameters)
        return True

    def _decode(self, latents: Tensor) -> Tensor:
        """Pixels (3, H, W) in [-1, 1]; the autoencoder visits the GPU only for this, if there is room for it."""
        if self._autoencoder is None:
            self._autoencoder = self.base.family.load_autoencoder(
                self.config.model, torch.device("cpu"), torch.float32
            )
        try:
            return self._decode_on(self.compute.device, self._autoencoder, latents)
        except RuntimeError as err:
            if not ran_out(err):
                raise
            reason = first_line(err)
        self.compute.free_unused()
        self.events.append(Log("warning", f"A sample is decoded by the processor, which takes longer: {reason}"))
        return self._decode_on(torch.device("cpu"), self._autoencoder, latents)

    def _decode_on(self, device: torch.device, autoencoder: Autoencoder, latents: Tensor) -> Tensor:
        autoencoder.to(device)
        try:
            with torch.inference_mode():
                return autoencoder.decode(latents.float())[0].cpu()
        finally:
            autoencoder.to(torch.device("cpu"))
            self.compute.free_unused()
