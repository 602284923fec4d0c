"""What a chosen setting could be instead: the values to step through, and what each is called."""

from __future__ import annotations

from typing import Any, get_args

from profiles.schema import Reasoned
from tui.setup.fields import schema_type
from tui.wizard.summary import plain, value_words

MOST = 256
"""The last number to step to, where nothing says how far they go."""

_NOT_OFFERED = {("memory.compute", "8bit")}
"""Values that mean what another one means."""


def text_of(value: Any) -> str:
    """A value as the configuration's text has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def value_of(reasoned: Reasoned, text: str) -> Any:
    """The text as a value of the setting's type."""
    if isinstance(reasoned.value, bool):
        return text == "true"
    return int(text) if isinstance(reasoned.value, int) else text


def options_of(reasoned: Reasoned) -> tuple[tuple[str, str], ...]:
    """Values and their names, in order; of a setting that cannot be changed its value alone."""
    value = text_of(reasoned.value)
    others = [plain(other.value) for other in reasoned.alternatives]
    if not reasoned.key:
        return ((value, value),)
    if isinstance(reasoned.value, bool):
        found = ["true", "false"]
    elif isinstance(reasoned.value, int):
        numbers = [int(text) for text in (value, *others) if text.isdecimal()]
        streams = reasoned.key.endswith("blocks_to_swap")
        last = max(numbers) if streams and others else max(MOST, *numbers)
        found = [str(number) for number in range(0 if streams else 1, last + 1)]
    else:
        known = [text_of(each) for each in get_args(schema_type(reasoned.key))]
        found = [each for each in known if (reasoned.key, each) not in _NOT_OFFERED]
        found += [each for each in (value, *others) if each not in found]
    return tuple((each, value_words(reasoned.key, _typed(reasoned, each))) for each in found)


def _typed(reasoned: Reasoned, text: str) -> Any:
    return value_of(reasoned, text) if isinstance(reasoned.value, bool) else text
