"""Loads the captioning model that a folder holds, of whichever class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from engine.captioners.blip import Blip
from engine.captioners.blip2 import Blip2
from engine.captioners.chat import Chat
from engine.captioners.florence import Florence
from engine.captioners.found import CaptionerFolder
from engine.captioners.request import DEFAULT_PROMPTS, CaptionRequest
from engine.captioners.weights import Picture, Stop, Vision, load_vision

ON_GPU, ON_PROCESSOR = 8, 1
"""Pictures at a time where the user says nothing."""


class Captioner(Protocol):
    """A model that describes pictures."""

    def caption(self, pictures: Sequence[Picture], stop: Stop) -> list[str]:
        """One answer for each picture, as it came; :class:`CaptioningStopped` where ``stop`` says so meanwhile."""
        ...


_CLASSES: dict[str, Callable[[Vision, str, int], Captioner]] = {
    "florence2": Florence,
    "blip": Blip,
    "blip-2": Blip2,
    "chat": Chat,
}


def load_captioner(found: CaptionerFolder, request: CaptionRequest) -> Captioner:
    """Load it, on the GPU where there is one.

    Raises:
        ModelFileError: it cannot be loaded.
    """
    if found.kind == "tagger":
        from engine.captioners.tagger import Tagger

        return Tagger(found.path, request.tagging)
    prompt = DEFAULT_PROMPTS[found.kind] if request.prompt is None else request.prompt
    return _CLASSES[found.kind](load_vision(found.path, device()), prompt, request.max_tokens)


def device() -> torch.device:
    """Where models run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def suggested_batch() -> int:
    """Pictures at a time to begin with."""
    return ON_GPU if device().type == "cuda" else ON_PROCESSOR
