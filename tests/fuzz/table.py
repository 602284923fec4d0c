"""All targets, by name."""

from __future__ import annotations

from tests.fuzz import targets_captioners, targets_models, targets_screen, targets_texts
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        *targets_models.TARGETS,
        *targets_texts.TARGETS,
        *targets_screen.TARGETS,
        *targets_captioners.TARGETS,
    )
}
