"""Sample pictures: from a prompt's embeddings and a seed to latents, by Euler steps along the flow.

Owns schedule, noise and the loop; loading, decoding and files are the caller's (:mod:`engine.training.png` writes
the picture). Nothing here touches a global random state, the transformer's mode or its adapter's state, so a
picture drawn in the middle of training changes nothing that comes after it.

Schedule and noise as in black-forest-labs/flux (``src/flux/sampling.py``): the shift follows the picture's size,
schnell has none, and noise is drawn unpacked, so a seed gives the same picture whatever the batch or device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.training.flow import resolution_shift
from engine.training.png import picture_pixels, save_png

if TYPE_CHECKING:
    from engine.memory.conditioning import Conditioning
    from engine.models.family import Family, TextEmbeds
    from engine.models.modulation import Modulation

__all__ = ["PictureRequest", "draw_latents", "flow_schedule", "initial_noise", "picture_pixels", "save_png"]

MIN_SIDE = 64
"""Smallest side in pixels: the pocket model's; FLUX.1 itself wants 256 and more."""

AHEAD = 256
"""Modulations of a picture computed in one pass; more only in pictures of more than 128 steps."""


@dataclass(frozen=True)
class PictureRequest:
    """One picture to draw. ``guidance`` is the embedded one (dev); ``cfg`` 1 draws without the negative prompt."""

    prompt: str
    negative: str = ""
    seed: int = 0
    width: int = 1024
    height: int = 1024
    steps: int = 20
    guidance: float = 3.5
    cfg: float = 1.0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as drawn: floored to multiples of 16, at least 64."""
        return max(MIN_SIDE, self.width // 16 * 16), max(MIN_SIDE, self.height // 16 * 16)

    def parameters(self) -> dict[str, Any]:
        """Plain values of what is drawn, for the picture's file and its name in reports."""
        width, height = self.size
        return {
            "prompt": self.prompt,
            "negative": self.negative,
            "seed": self.seed,
            "width": width,
            "height": height,
            "steps": self.steps,
            "guidance": self.guidance,
            "cfg": self.cfg,
        }


def flow_schedule(steps: int, image_tokens: int, shifted: bool) -> list[float]:
    """Noise levels from 1 to 0, ``steps`` + 1 of them.

    Shifted (dev): ``t <- exp(mu) / (exp(mu) + 1/t - 1)`` with mu linear in the packed image tokens, 0.5 at 256 and
    1.15 at 4096, beyond both too. Unshifted (schnell): linear. Computed in float32, as BFL's ``get_schedule``.

    Raises:
        ValueError: ``steps`` is below 1.
    """
    if steps < 1:
        raise ValueError(f"a picture takes at least one step, not {steps}")
    times = torch.linspace(1.0, 0.0, steps + 1)
    if shifted:
        factor = resolution_shift(image_tokens)
        times = factor / (factor + (1.0 / times - 1.0))
    return times.tolist()


def initial_noise(request: PictureRequest, channels: int = 16, downscale: int = 8) -> Tensor:
    """Noise (1, channels, height/downscale, width/downscale), float32, from a CPU generator of the request's seed."""
    width, height = request.size
    generator = torch.Generator().manual_seed(request.seed)
    return torch.randn(1, channels, height // downscale, width // downscale, generator=generator)


def draw_latents(
    family: Family,
    transformer: nn.Module,
    text: TextEmbeds,
    negative_text: TextEmbeds | None,
    request: PictureRequest,
    variant: str,
    device: torch.device | str,
    should_stop: Callable[[], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
    masked: bool = False,
    conditioning: Conditioning | None = None,
) -> Tensor | None:
    """Draw one picture: Euler steps ``x += (t_next - t) * velocity`` in float32 from noise to latents.

    Args:
        family: gives the velocity of its transformer.
        text: embeddings of the prompt, batch of 1.
        negative_text: embeddings of the negative prompt; needed when ``request.cfg`` is not 1.
        variant: "dev" or "schnell"; decides whether the schedule is shifted.
        device: where the transformer is.
        should_stop: asked before every step.
        progress: told (steps done, steps) after every step.
        masked: mask padding tokens of the text, as in training.
        conditioning: computes the modulation of all steps and both prompts ahead, in one pass over its weights;
            None lets the transformer do so step by step, with the same result.

    Returns:
        Latents (1, 16, H/8, W/8), float32, on ``device``; None if it was stopped.

    Raises:
        ValueError: ``cfg`` is not 1 and there are no negative embeddings.
    """
    x = initial_noise(request, family.latent_channels, family.downscale).to(device)
    tokens = x.shape[2] * x.shape[3] // family.patch**2
    times = flow_schedule(request.steps, tokens, family.sampling_shift(variant))
    texts = [text] if request.cfg == 1.0 or negative_text is None else [text, negative_text]
    with eval_mode(transformer), torch.no_grad():
        coming = modulations_ahead(conditioning, times[:-1], texts, request.guidance)
        for step in range(request.steps):
            if should_stop is not None and should_stop():
                return None
            sigma = torch.full((1,), times[step], dtype=torch.float32, device=device)
            v = guided_velocity(family, transformer, x, sigma, text, negative_text, request, masked, next(coming))
            x = x + (times[step + 1] - times[step]) * v
            if progress is not None:
                progress(step + 1, request.steps)
    return x


def guided_velocity(
    family: Family,
    transformer: nn.Module,
    x: Tensor,
    sigma: Tensor,
    text: TextEmbeds,
    negative_text: TextEmbeds | None,
    request: PictureRequest,
    masked: bool,
    modulations: Sequence[Modulation | None] = (None, None),
) -> Tensor:
    """The velocity under classifier-free guidance: ``negative + (positive - negative) * cfg``; cfg 1 costs nothing.

    Args:
        modulations: what was computed ahead for the prompt and the negative prompt.

    Returns:
        Tensor of the shape of ``x``, float32.

    Raises:
        ValueError: ``cfg`` is not 1 and there are no negative embeddings.
    """
    positive = family.velocity(transformer, x, sigma, text, request.guidance, masked, modulations[0]).float()
    if request.cfg == 1.0:
        return positive
    if negative_text is None:
        raise ValueError("classifier-free guidance needs the negative prompt's embeddings (an empty prompt will do)")
    negative = family.velocity(transformer, x, sigma, negative_text, request.guidance, masked, modulations[1]).float()
    return negative + (positive - negative) * request.cfg


def modulations_ahead(
    conditioning: Conditioning | None, times: Sequence[float], texts: Sequence[TextEmbeds], guidance: float
) -> Iterator[Sequence[Modulation | None]]:
    """For each noise level the modulation of every text (batches of 1), computed for as many levels as fit a table.

    Yields:
        One modulation for each of ``texts``, on the compute device; None each without a ``conditioning``.
    """
    if conditioning is None:
        while True:
            yield (None, None)
    width = len(texts)
    pooled = torch.cat([text.pooled for text in texts])
    for first in range(0, len(times), AHEAD // width):
        levels = torch.tensor(times[first : first + AHEAD // width], dtype=torch.float32)
        table = conditioning.table(
            levels.repeat_interleave(width),
            pooled.repeat(len(levels), 1),
            torch.full((len(levels) * width,), float(guidance)),
        )
        for step in range(len(levels)):
            yield [table.take(step * width + n, 1, conditioning.device) for n in range(width)]


@contextlib.contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout) inside; afterwards every submodule is in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
