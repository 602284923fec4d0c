"""Which linears of the transformer get an adapter, and how large each one is.

Comes in: every linear that can be adapted, with its kind, and the run's :class:`~engine.config.LoraConfig`. Goes
out: a list of :class:`Target`. Pure and without torch, so that a form can show what a setting would train.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.config import LoraConfig
from engine.errors import ConfigError

MODULATION_KINDS = frozenset({"img_mod", "txt_mod", "single_mod"})
"""Left out of ``targets = "default"``."""

_BLOCK = re.compile(r"^(double|single)_blocks\.(\d+)\.")
_NUMBERS = re.compile(r"^(\d{1,6})(?:-(\d{1,6}))?$")

Shape = tuple[str, int, int]
"""Kind, input features, output features of a linear."""


@dataclass(frozen=True)
class Target:
    """One adapted linear: its dotted name in the transformer, its size and the adapter's."""

    name: str
    kind: str
    in_features: int
    out_features: int
    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        """The factor on ``up @ down``."""
        return self.alpha / self.rank

    @property
    def num_parameters(self) -> int:
        """Values in the two matrices."""
        return self.rank * (self.in_features + self.out_features)


def select_targets(modules: Mapping[str, Shape], config: LoraConfig) -> list[Target]:
    """Choose among ``modules`` (name to kind, inputs, outputs), keeping their order.

    A module is taken when its kind, its block and its name are. Modulation kinds need ``targets = "all"`` or a rank
    of their own in ``ranks``: who names a kind's rank wants it trained. Regular expressions search the dotted name.

    Raises:
        ConfigError: a range or a regular expression cannot be read or matches nothing, or no module is left.
    """
    blocks = {
        "double": _block_numbers("double_blocks", config.double_blocks, _depth(modules, "double")),
        "single": _block_numbers("single_blocks", config.single_blocks, _depth(modules, "single")),
    }
    include = _patterns("include", config.include, modules)
    exclude = _patterns("exclude", config.exclude, modules)
    targets = []
    for name, (kind, in_features, out_features) in modules.items():
        rank = _rank(kind, config)
        if not rank or not _in_blocks(name, blocks):
            continue
        if (include and not _matches(name, include)) or _matches(name, exclude):
            continue
        alpha = config.alphas.get(kind, config.alpha)
        targets.append(Target(name, kind, in_features, out_features, rank, float(alpha or rank)))
    if not targets:
        raise ConfigError(
            "The LoRA would train nothing",
            f"none of the {len(modules)} linears is left by targets, ranks, double_blocks, single_blocks, "
            "include and exclude in [lora]",
            'Widen one of them; the modulation linears (img_mod, txt_mod, single_mod) need targets = "all".',
        )
    return targets


def _rank(kind: str, config: LoraConfig) -> int:
    if kind in config.ranks:
        return config.ranks[kind]
    if config.targets == "default" and kind in MODULATION_KINDS:
        return 0
    return config.rank


def _depth(modules: Mapping[str, Shape], stream: str) -> int:
    found = (_BLOCK.match(name) for name in modules)
    return 1 + max((int(hit[2]) for hit in found if hit and hit[1] == stream), default=-1)


def _in_blocks(name: str, blocks: Mapping[str, frozenset[int]]) -> bool:
    hit = _BLOCK.match(name)
    return hit is None or int(hit[2]) in blocks[hit[1]]


def _block_numbers(key: str, text: str, depth: int) -> frozenset[int]:
    """Read ``all``, ``none`` or ``0,1,4-8`` against a model of ``depth`` blocks."""
    word = text.strip().lower()
    if word in ("all", "none"):
        return frozenset(range(depth) if word == "all" else ())
    numbers: set[int] = set()
    for part in word.split(","):
        hit = _NUMBERS.match(part.strip())
        first, last = (int(hit[1]), int(hit[2] or hit[1])) if hit else (1, 0)
        if first > last:
            raise ConfigError(
                f"lora.{key} cannot be read",
                f"{part.strip()!r} in {text!r} is neither a block number nor a range",
                f'Write "all", "none" or numbers and ranges from 0 to {max(depth - 1, 0)}, such as "0,1,4-8".',
            )
        if last >= depth:
            raise ConfigError(
                f"lora.{key} names a block that is not there",
                f"block {last} in {text!r}; this model has {depth}, numbered from 0",
                f"The highest number possible is {depth - 1}." if depth else 'Write "none" or "all".',
            )
        numbers.update(range(first, last + 1))
    return frozenset(numbers)


def _patterns(key: str, texts: Sequence[str], modules: Mapping[str, Shape]) -> list[re.Pattern[str]]:
    patterns = []
    for text in texts:
        try:
            pattern = re.compile(text)
            if _may_take_forever(text):
                raise OverflowError("a repetition within a repetition, or more than four: it could take for ever")
        except (re.error, RecursionError, OverflowError) as err:
            raise ConfigError(
                f"lora.{key} holds a regular expression that cannot be read",
                f"{text!r}: {err}",
                r"A dot stands for any character: write double_blocks\.0\. for the first double block.",
            ) from err
        if not any(pattern.search(name) for name in modules):
            example = next(iter(modules), "")
            raise ConfigError(
                f"lora.{key} matches no module",
                f"{text!r} is found in none of the {len(modules)} names",
                f"Names look like {example}; `kiln models inspect` lists a file's.",
            )
        patterns.append(pattern)
    return patterns


def _may_take_forever(text: str) -> bool:
    """Whether searching a name for ``text`` could try more ways than anybody waits for: it may be a stranger's."""
    return len(text) > 1000 or _repetitions(re._parser.parse(text), False) > 4  # type: ignore[attr-defined]


def _repetitions(parsed: Any, within: bool) -> int:
    """Open repetitions in a parsed expression, 5 where one lies in another; what chooses in one counts as another."""
    count = 0
    for operation, argument in parsed:
        name = str(operation)
        repeats = name.endswith("_REPEAT") and argument[1] > 1 and argument[0] != argument[1]
        if within and (repeats or name == "BRANCH"):
            return 5
        count += repeats
        for inner in _parts_of(argument):
            count += _repetitions(inner, within or repeats)
    return count


def _parts_of(argument: Any) -> Iterator[Any]:
    """The parsed expressions in an operation's argument, at any depth."""
    if isinstance(argument, re._parser.SubPattern):  # type: ignore[attr-defined]
        yield argument
    elif isinstance(argument, tuple | list):
        for item in argument:
            yield from _parts_of(item)


def _matches(name: str, patterns: Sequence[re.Pattern[str]]) -> bool:
    return any(pattern.search(name) for pattern in patterns)
