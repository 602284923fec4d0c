"""Pictures drawn while a run goes on: the [sampling] table and its prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from engine.config_part import CountOrZero, NonNegative, Part

PROMPT_KINDS = ("caption", "scene", "off-domain", "no trigger")
"""What a sample prompt is to show: a caption that was trained on (is it learned?), the trigger in a new scene (does
it carry over?), the trigger where it does not belong (does it still obey?), no trigger (has the base changed?)."""


class PromptConfig(Part):
    """One sample picture."""

    prompt: str
    kind: Literal["", "caption", "scene", "off-domain", "no trigger"] = ""
    """What it is to show; empty for a prompt of one's own."""
    seed: CountOrZero = 0
    width: Annotated[int, Field(ge=16, le=4096)] | None = None
    height: Annotated[int, Field(ge=16, le=4096)] | None = None
    """Floored to multiples of 16; unset takes ``sampling.width`` and ``height``."""
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    guidance: NonNegative | None = None
    negative: str = ""


class SamplingConfig(Part):
    """Pictures drawn while training."""

    prompts: tuple[PromptConfig, ...] = ()
    every_epochs: CountOrZero = 1
    every_steps: CountOrZero = 0
    at_start: bool = True
    width: Annotated[int, Field(ge=16, le=4096)] = 1024
    height: Annotated[int, Field(ge=16, le=4096)] = 1024
    steps: Annotated[int, Field(ge=1, le=1000)] = 20
    guidance: NonNegative = 3.5
    cfg: NonNegative = 1.0
    """Classifier-free guidance against the negative prompt; 1 is off."""
    strengths: Annotated[tuple[Annotated[float, Field(ge=0, le=2)], ...], Field(min_length=1, max_length=16)] = (1.0,)
    """Factors on the LoRA; each prompt is drawn at each of them. 0.6, 0.8 and 1 show how much of it is wanted."""
    copy_alarm: bool = True
    """Compare samples with the training pictures and say where one is nearly a copy; takes no model."""
    score_clip: Path | None = None
    """Folder of a CLIP model (config.json, model.safetensors, tokenizer), for example of
    openai/clip-vit-large-patch14: tells how like each sample is to the training pictures, and to its prompt."""
    score_dino: Path | None = None
    """Folder of a DINOv2 model (config.json, model.safetensors), for example of facebook/dinov2-base: how like each
    sample is to the training pictures; finer than CLIP about one and the same thing or person."""
