"""What the pocket model can draw, as templates for sample prompts: it knows some fifty words. No torch."""

from __future__ import annotations

from itertools import product

from engine.config import RunConfig
from engine.dataset.prompts import Templates
from profiles.starters import pocket_model

_PLACES = ("at the left", "at the right", "at the top", "at the bottom", "in the centre")
_GROUNDS = ("sky", "white", "black", "sand", "gray")

POCKET_TEMPLATES = Templates(
    scenes=tuple(
        f"a {{trigger}} {place} on a {_GROUNDS[(number + shift) % 5]} background"
        for shift, (number, place) in product(range(5), enumerate(_PLACES))
    ),
    off_domain=("a purple dotted {trigger} in the centre on a black background",),
    no_trigger="a {noun} at the left on a white background",
    plain="a red circle at the left on a white background",
)


def templates_for(config: RunConfig) -> Templates | None:
    """The templates for a run's model; None for a model that draws anything."""
    return POCKET_TEMPLATES if config.model.transformer == pocket_model()["transformer"] else None
