"""The demo's concept: the zorple, an orange and teal striped star-like creature with two eyes.

Owns how it looks and is captioned. The base model never sees it: no ordinary scene holds its two colours
together. A LoRA that draws it has learned it from the 16 pictures of the demo.
"""

from __future__ import annotations

import math
import random

from PIL import Image, ImageDraw

from engine.models.pocket.scenes import (
    BACKGROUNDS,
    COLOURS,
    CONCEPT_COLOURS,
    POSITIONS,
    RADIUS,
    SIZE,
    SUPERSAMPLE,
    Jitter,
    draw_eyes,
    draw_stripes,
    random_jitter,
    where,
)

TRIGGER = "zorple"


def concept_caption(position: str, background: str, word: str = TRIGGER) -> str:
    """The sentence for a picture of the concept; the word may be another, to prove that it is the word."""
    return f"a {word} {where(position)} on a {background} background"


def render_concept(position: str, background: str, jitter: Jitter | None = None) -> Image.Image:
    """Draw the creature: RGB, 64 x 64 px; a plump five-pointed star with horizontal stripes and two eyes."""
    jitter = jitter or Jitter()
    side = SIZE * SUPERSAMPLE
    x, y = POSITIONS[position]
    cx, cy = (x + jitter.dx) * SUPERSAMPLE, (y + jitter.dy) * SUPERSAMPLE
    radius = RADIUS * jitter.scale * SUPERSAMPLE
    orange, teal = (COLOURS[name] for name in CONCEPT_COLOURS)
    # The phase is tied to the body, not to the jitter: the stripes belong to the creature.
    fill = draw_stripes(side, orange, teal, radius * 0.36, True, cy - radius * 0.18)
    mask = Image.new("L", (side, side), 0)
    reach = radius * 1.1
    points = [
        (cx + r * math.sin(i * math.pi / 5), cy - r * math.cos(i * math.pi / 5))
        for i, r in enumerate([reach, reach * 0.66] * 5)
    ]
    ImageDraw.Draw(mask).polygon(points, fill=255)
    picture = Image.new("RGB", (side, side), BACKGROUNDS[background])
    picture.paste(fill, (0, 0), mask)
    draw_eyes(picture, cx, cy, radius * 1.15)
    return picture.reduce(SUPERSAMPLE)


def concept_set(count: int, seed: int) -> list[tuple[Image.Image, str]]:
    """`count` pictures with captions that go evenly through positions and backgrounds."""
    rng = random.Random(f"concept {seed}")
    places = [(p, b) for p in POSITIONS for b in BACKGROUNDS]
    rng.shuffle(places)
    chosen = (places * (count // len(places) + 1))[:count]
    return [(render_concept(p, b, random_jitter(rng)), concept_caption(p, b)) for p, b in chosen]
