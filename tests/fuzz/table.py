"""All targets, by name."""

from __future__ import annotations

from tests.fuzz import targets_captioners, targets_dataset, targets_models, targets_screen, targets_texts
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for part in (targets_models, targets_texts, targets_screen, targets_dataset, targets_captioners)
    for target in part.TARGETS
}
