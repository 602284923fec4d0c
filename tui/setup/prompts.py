"""Sample prompts in the setup form: written from the captions of the folder that is typed, one a line.

What a prompt is to show (its kind) has no place in a line of text; it is kept beside the values, by the line, for as
long as the line stays as it was written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from engine.config import PROMPT_KINDS, PromptConfig
from profiles.presets import TRIGGER

if TYPE_CHECKING:
    from engine.config import RunConfig
    from engine.dataset.scan import Scan

KINDS = "@kinds"
"""Where the kinds are kept among the form's values, as JSON."""


def written(scan: Scan, config: RunConfig) -> tuple[PromptConfig, ...]:
    """The prompts for what was scanned."""
    from engine.dataset.prompts import prompts_for
    from profiles.prompts import templates_for

    return prompts_for(scan.samples, config, templates_for(config))


def fill_in(values: dict[str, str], prompts: Sequence[PromptConfig]) -> None:
    """Put ``prompts`` into the form's field; the trigger word stands there as a place to be filled in."""
    trigger = values["trigger"].strip()
    lines = [" ".join((one.prompt.replace(trigger, TRIGGER) if trigger else one.prompt).split()) for one in prompts]
    values["prompts"] = "\n".join(lines)
    values[KINDS] = json.dumps({line: one.kind for line, one in zip(lines, prompts, strict=True)})


def kinds_of(values: Mapping[str, str]) -> dict[str, str]:
    """The kinds by line; a session that is damaged has none."""
    try:
        kinds = json.loads(values.get(KINDS, "{}"))
    except (ValueError, RecursionError):
        return {}
    known = kinds.items() if isinstance(kinds, dict) else ()
    return {line: kind for line, kind in known if kind in PROMPT_KINDS}
