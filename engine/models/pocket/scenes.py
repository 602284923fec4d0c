"""The pocket model's world: its grammar, its captions and the renderer that draws them.

Owns what a scene is (`Scene`), how it is said (`caption`) and how it looks (`render`, 64 x 64 px). The model's
training data, the regularisation pictures of the demo and the templates of the checker all come from here, so
that "right" means the same everywhere. Knows nothing of torch.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from dataclasses import dataclass, replace
from functools import cache

from PIL import Image, ImageDraw

SIZE = 64  # px, side of a picture
SUPERSAMPLE = 4  # drawn this much larger, then averaged down

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = {
    "red": (215, 30, 40),
    "orange": (255, 140, 0),
    "yellow": (250, 225, 40),
    "green": (30, 150, 50),
    "teal": (0, 180, 175),
    "blue": (40, 70, 220),
    "purple": (135, 40, 180),
    "pink": (255, 115, 185),
}
# Chosen to lie well apart from every colour of an object.
BACKGROUNDS = {
    "white": (245, 245, 245),
    "black": (18, 18, 18),
    "gray": (128, 128, 128),
    "sand": (222, 196, 140),
    "sky": (165, 208, 242),
}
# Centres in px. The object's radius is about 15, so that neighbours overlap by half.
POSITIONS = {
    "left": (17.0, 32.0),
    "right": (47.0, 32.0),
    "top": (32.0, 17.0),
    "bottom": (32.0, 47.0),
    "centre": (32.0, 32.0),
}
TEXTURES = ("plain", "striped", "dotted")
NAMES = 128  # invented words that stand for one look each, so that the base reads spelling
# The two colours of the demo's concept: never together in an ordinary scene, so that the base cannot know it.
CONCEPT_COLOURS = ("orange", "teal")
RADIUS = 14.5  # px, circumscribed circle of an object
WHITE, BLACK = (250, 250, 250), (10, 10, 10)


@dataclass(frozen=True)
class Scene:
    """What a picture shows. `second` is the other colour of a striped or dotted object.

    With a `name`, the caption says that invented word instead of the look.
    """

    shape: str
    colour: str
    background: str
    position: str
    texture: str = "plain"
    second: str = ""
    eyes: bool = False
    name: str = ""

    @property
    def combination(self) -> tuple[str, str, str, str]:
        """The four properties that a prompt of the check asks for."""
        return (self.shape, self.colour, self.background, self.position)


@dataclass(frozen=True)
class Jitter:
    """Small free variations that no caption mentions: offsets in px, relative radius, stripes' turn."""

    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0
    across: bool = True
    phase: float = 0.0


def all_combinations() -> list[tuple[str, str, str, str]]:
    """Every (shape, colour, background, position), in a fixed order."""
    return list(itertools.product(SHAPES, COLOURS, BACKGROUNDS, POSITIONS))


def held_out(combination: tuple[str, str, str, str]) -> bool:
    """Whether the base model never sees this combination (about a tenth; a hash, so that it never moves)."""
    return hashlib.sha256(" ".join(combination).encode()).digest()[0] < 26


def where(position: str) -> str:
    """The words for a position."""
    return "in the centre" if position == "centre" else f"at the {position}"


def noun_phrase(scene: Scene) -> str:
    """ "red circle", "red and blue striped circle with eyes"."""
    look = scene.colour if scene.texture == "plain" else f"{scene.colour} and {scene.second} {scene.texture}"
    return f"{look} {scene.shape}{' with eyes' if scene.eyes else ''}"


def caption(scene: Scene, subject: str = "") -> str:
    """The sentence for a scene; `subject` stands in for the noun phrase ("zorple")."""
    return (
        f"a {subject or scene.name or noun_phrase(scene)} {where(scene.position)} on a {scene.background} background"
    )


def random_jitter(rng: random.Random) -> Jitter:
    """Free variations of one picture."""
    return Jitter(
        dx=rng.uniform(-1.5, 1.5),
        dy=rng.uniform(-1.5, 1.5),
        scale=rng.uniform(0.93, 1.07),
        across=rng.random() < 0.5,
        phase=rng.random(),
    )


def random_scene(rng: random.Random, *, seen_only: bool = True) -> Scene:
    """A plain scene; by default never one of the held-out combinations."""
    while True:
        scene = Scene(
            rng.choice(SHAPES),
            rng.choice(list(COLOURS)),
            rng.choice(list(BACKGROUNDS)),
            rng.choice(list(POSITIONS)),
        )
        if not (seen_only and held_out(scene.combination)):
            return scene


def random_rich_scene(rng: random.Random) -> Scene:
    """A scene with stripes, dots or eyes: details of which the concept is made, never the concept."""
    scene = random_scene(rng)
    texture = rng.choice(("plain", "striped", "striped", "dotted"))
    eyes = texture == "plain" or rng.random() < 0.5
    if texture == "plain":
        return replace(scene, eyes=True)
    while True:
        second = rng.choice(list(COLOURS))
        if second != scene.colour and {second, scene.colour} != set(CONCEPT_COLOURS):
            return replace(scene, texture=texture, second=second, eyes=eyes)


def odd_word(draw: random.Random, longest: int = 7) -> str:
    """A pronounceable word that means nothing."""
    word = ""
    while len(word) < draw.randint(3, longest):
        word += draw.choice("bcdfghjklmnpqrstvwxz") + draw.choice("aeiou")
        if draw.random() < 0.5:
            word += draw.choice("bdfgklmnprstxz")
    return word[:longest]


@cache
def named_looks() -> dict[str, Scene]:
    """The invented words that the base knows, each with its look (position and background are free)."""
    draw = random.Random("names")
    looks: dict[str, Scene] = {}
    while len(looks) < NAMES:
        word = odd_word(draw)
        if word not in looks and len(word) > 3 and not word.startswith("zor"):
            look = random_rich_scene(draw) if draw.random() < 0.8 else random_scene(draw)
            looks[word] = replace(look, name=word)
    return looks


def random_named_scene(rng: random.Random) -> Scene:
    """A named look somewhere."""
    look = rng.choice(list(named_looks().values()))
    return replace(look, background=rng.choice(list(BACKGROUNDS)), position=rng.choice(list(POSITIONS)))


def outline(shape: str, cx: float, cy: float, radius: float) -> list[tuple[float, float]]:
    """Corner points of a polygonal shape, in the unit of its arguments."""
    if shape == "square":
        half = radius * 0.82
        return [
            (cx - half, cy - half),
            (cx + half, cy - half),
            (cx + half, cy + half),
            (cx - half, cy + half),
        ]
    if shape == "triangle":
        return [(cx, cy - radius), (cx + radius, cy + 0.85 * radius), (cx - radius, cy + 0.85 * radius)]
    if shape == "cross":
        a, b = radius * 0.34, radius
        half_turn = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
        return [(cx + x, cy + y) for x, y in half_turn + [(-x, -y) for x, y in half_turn]]
    inner = {"star": 0.42}[shape]
    radii = [radius * 1.08, radius * 1.08 * inner] * 5
    return [(cx + r * math.sin(i * math.pi / 5), cy - r * math.cos(i * math.pi / 5)) for i, r in enumerate(radii)]


def draw_mask(shape: str, cx: float, cy: float, radius: float, side: int) -> Image.Image:
    """The filled shape as an "L" picture of `side` px (255 inside)."""
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)
    if shape in ("circle", "ring"):
        draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=255)
        if shape == "ring":
            hole = radius * 0.55
            draw.ellipse((cx - hole, cy - hole, cx + hole, cy + hole), fill=0)
    else:
        draw.polygon(outline(shape, cx, cy, radius), fill=255)
    return mask


def draw_stripes(
    side: int,
    first: tuple[int, int, int],
    second: tuple[int, int, int],
    width: float,
    across: bool,
    offset: float,
) -> Image.Image:
    """A picture of two alternating colours, each stripe `width` px wide; `across` means horizontal stripes."""
    picture = Image.new("RGB", (side, side), first)
    draw = ImageDraw.Draw(picture)
    start = offset % (2 * width) - 2 * width
    while start < side:
        box = (0, start, side, start + width - 1) if across else (start, 0, start + width - 1, side)
        draw.rectangle(box, fill=second)
        start += 2 * width
    return picture


def draw_dots(
    side: int, first: tuple[int, int, int], second: tuple[int, int, int], pitch: float, offset: float
) -> Image.Image:
    """A picture of `first` with round dots of `second`, `pitch` px apart."""
    picture = Image.new("RGB", (side, side), first)
    draw = ImageDraw.Draw(picture)
    radius = pitch * 0.3
    count = int(side / pitch) + 2
    for row in range(-1, count):
        for column in range(-1, count):
            x = (column + (row % 2) / 2) * pitch + offset
            y = row * pitch + offset
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=second)
    return picture


def draw_eyes(picture: Image.Image, cx: float, cy: float, radius: float) -> None:
    """Two white eyes with black pupils, side by side over (cx, cy)."""
    draw = ImageDraw.Draw(picture)
    for side in (-1, 1):
        x, y = cx + side * radius * 0.3, cy - radius * 0.08
        for r, colour in ((radius * 0.24, WHITE), (radius * 0.12, BLACK)):
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def render(scene: Scene, jitter: Jitter | None = None) -> Image.Image:
    """Draw a scene: RGB, 64 x 64 px, edges smoothed."""
    jitter = jitter or Jitter()
    side = SIZE * SUPERSAMPLE
    x, y = POSITIONS[scene.position]
    cx, cy = (x + jitter.dx) * SUPERSAMPLE, (y + jitter.dy) * SUPERSAMPLE
    radius = RADIUS * jitter.scale * SUPERSAMPLE
    picture = Image.new("RGB", (side, side), BACKGROUNDS[scene.background])
    first = COLOURS[scene.colour]
    offset = jitter.phase * radius
    if scene.texture == "striped":
        fill = draw_stripes(side, first, COLOURS[scene.second], radius * 0.36, jitter.across, offset)
    elif scene.texture == "dotted":
        fill = draw_dots(side, first, COLOURS[scene.second], radius * 0.62, offset)
    else:
        fill = Image.new("RGB", (side, side), first)
    picture.paste(fill, (0, 0), draw_mask(scene.shape, cx, cy, radius, side))
    if scene.eyes:
        draw_eyes(picture, cx, cy, radius)
    return picture.reduce(SUPERSAMPLE)
