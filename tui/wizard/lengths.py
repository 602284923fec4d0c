"""How long a run should be for as many pictures as there are: the recipe's band, taken over while nobody said more.

A recipe says for each number of pictures how often an epoch shows them, how many epochs, and how often it saves. As
long as the fields hold what the preset or the last band put there, they follow the number of pictures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from engine.config import RunConfig
from engine.dataset.scan import Sample
from profiles.advice import Advice, advice
from profiles.presets import shelf
from profiles.recipes import Recipe
from tui.setup.fields import FIELDS, schema_default, shown
from tui.setup.form import SetupForm
from tui.setup.tables import lookup

BAND = "band"
"""The wizard's answer that keeps what was filled in last."""

FOLLOWING = ("repeats", "epochs", "save_every", "sample_every")


def recipe_of(form: SetupForm) -> Recipe | None:
    """The recipe that the form's preset is; None for the pocket model's and another run's settings."""
    return shelf().recipes.get(form.values["preset"])


def follow(form: SetupForm, answers: dict[str, str], samples: Sequence[Sample]) -> bool:
    """Fill in the band for these pictures, where nobody changed what was filled in; whether anything changed."""
    recipe = recipe_of(form)
    concept = [sample for sample in samples if not sample.regularization]
    typed = {name: form.values[name] for name in FOLLOWING}
    if recipe is None or not concept or typed not in (_of_preset(recipe), _last(answers)):
        return False
    if not typed["repeats"] and any(sample.repeats != 1 for sample in concept):
        return False  # the folders' names say how often
    band = recipe.band(len(concept))
    wanted = {"repeats": str(band.repeats), "epochs": str(band.epochs)}
    wanted |= {"save_every": str(band.every), "sample_every": str(band.every)}
    answers[BAND] = json.dumps(wanted)
    changed = typed != wanted
    form.values.update(wanted)
    return changed


def release(form: SetupForm, answers: dict[str, str]) -> None:
    """Before another preset is chosen: the repeats that a band filled in go with the former one."""
    last = _last(answers)
    if last is not None and form.values["repeats"] == last.get("repeats"):
        form.values["repeats"] = ""


def advised(config: RunConfig, recipe: Recipe | None, samples: Sequence[Sample]) -> dict[str, Advice]:
    """What the recipe has against the configuration, by field; "" for what has none."""
    if recipe is None:
        return {}
    by_key = {field.key: field.id for field in FIELDS.values() if field.key}
    images = sum(not sample.regularization for sample in samples)
    told: dict[str, Advice] = {}
    for each in advice(config, recipe, images):
        told.setdefault(by_key.get(each.key, ""), each)
    return told


def _of_preset(recipe: Recipe) -> dict[str, str]:
    keys = {name: FIELDS[name].key for name in FOLLOWING if FIELDS[name].key}
    return {"repeats": ""} | {
        name: shown(lookup(recipe.table, key, schema_default(key))) for name, key in keys.items()
    }


def _last(answers: dict[str, str]) -> dict[str, str] | None:
    try:
        last = json.loads(answers.get(BAND, ""))
    except (ValueError, RecursionError):
        return None
    return last if isinstance(last, dict) else None
