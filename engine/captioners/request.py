"""What is asked of a captioning model: which one, with which words, and how its answers become texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

MAX_PROMPT = 4000
MAX_BATCH = 256

DESCRIBE = (
    "Describe this picture in two or three plain sentences, for somebody who cannot see it. Begin with the subject; "
    "name clothes, pose, light and background. No opinions, no introduction."
)

DEFAULT_PROMPTS = {"florence2": "<MORE_DETAILED_CAPTION>", "blip": "", "blip-2": "", "tagger": "", "chat": DESCRIBE}
"""By kind of model. What BLIP and BLIP-2 are given is the beginning of their answer: nothing is the best of them."""


class CaptioningStopped(Exception):
    """The user wants no more answers: what was begun is given up."""


@dataclass(frozen=True)
class Tagging:
    """How a tagger's scores become tags.

    Attributes:
        general: a general tag counts from this score on.
        character: a character's name counts from this score on.
        characters: whether characters are named at all.
        rating: whether the likeliest rating is among the tags, as ``rating: general``.
        blacklist: tags that never count, however they are written.
    """

    general: float = 0.35
    character: float = 0.85
    characters: bool = True
    rating: bool = False
    blacklist: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaptionRequest:
    """A model and how it is asked.

    Attributes:
        model: the model's folder.
        prompt: what it is asked; None for the default of its kind.
        trigger: a word put in front of answers that lack it; none when "".
        batch_size: pictures at a time; 0 for what the device suggests. It is lowered by itself where memory runs out.
        max_tokens: longest answer.
        tagging: for taggers alone.
        again: make answers anew where there are some already.
    """

    model: Path
    prompt: str | None = None
    trigger: str = ""
    batch_size: int = 0
    max_tokens: int = 300
    tagging: Tagging = field(default_factory=Tagging)
    again: bool = False
