"""Trigger words: which ones suit, and what is wrong with one in a caption.

A good trigger word means nothing to the model before it is trained: the encoders take it apart into short pieces that
are no words, people can say and remember it, and no caption holds it. What is suggested depends on a seed alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.dataset.problems import Problem, problem
from engine.dataset.tokens import Tokenizer
from engine.draws import python_random

CONSONANTS = "bdfgklmnprstvz"
VOWELS = "aeiou"
SHAPES = ("cvcvc", "cvccv", "cvcvcv", "cvccvc", "vccvc")
LONGEST_PIECE = 3
"""A longer piece is a word, or close to one."""
TRIED = 2_000
"""Words looked at before fewer than wanted are given."""

_UGLY = re.compile("nig|fag|cum|tit|rap|nud|sex|kil|nazi|vagi|pen[iu]s|fuk|fuc|anus|puta|gook|kike|dik")
"""Nobody wants to type these."""

Fault = Literal["missing", "twice", "written otherwise", "not first"]

ADDED = "Training puts it in front of captions that lack it; nothing is written to the files."
"""How a trigger word of the configuration (``dataset.captions.trigger_word``) acts."""


@dataclass(frozen=True)
class Suggestion:
    """A word, and what the encoders make of it; no pieces where there is no tokenizer."""

    word: str
    clip: tuple[str, ...] = ()
    t5: tuple[str, ...] = ()


def suggested(
    seed: int,
    count: int,
    known: Collection[str] = frozenset(),
    tokenizers: tuple[Tokenizer, Tokenizer] | None = None,
    captions: Iterable[str] = (),
) -> list[Suggestion]:
    """Words for a trigger, the same for the same arguments.

    Args:
        seed: another one gives others.
        count: how many.
        known: words that mean something, in small letters: a dictionary.
        tokenizers: CLIP's and T5's; without them nothing is known of pieces.
        captions: a word that is anywhere in these is not suggested.
    """
    used = "\n".join(captions).lower()
    found: list[Suggestion] = []
    for word in _made(seed):
        if word in known or word in used or any(word == other.word for other in found):
            continue
        suggestion = _taken_apart(word, tokenizers)
        if (
            suggestion is not None
            and not any(piece in known for piece in _long(suggestion))
            and not _UGLY.search(word)
        ):
            found.append(suggestion)
            if len(found) == count:
                break
    return found


def _made(seed: int) -> Iterator[str]:
    draw = python_random(seed, "trigger-words")
    for _ in range(TRIED):
        shape = draw.choice(SHAPES)
        yield "".join(draw.choice(CONSONANTS if letter == "c" else VOWELS) for letter in shape)


def _taken_apart(word: str, tokenizers: tuple[Tokenizer, Tokenizer] | None) -> Suggestion | None:
    """The word with its pieces; None where an encoder knows it, or a word in it."""
    if tokenizers is None:
        return Suggestion(word)
    clip, t5 = (tuple(tokenizer.pieces(word)) for tokenizer in tokenizers)
    for pieces in (clip, t5):
        if len(pieces) < 2 or any(len(piece) > LONGEST_PIECE for piece in pieces):
            return None
    suggestion = Suggestion(word, clip, t5)
    # A piece that is one token as a word of its own too is a word, whatever the language.
    meant = any(len(tokenizer.pieces(piece)) == 1 for piece in _long(suggestion) for tokenizer in tokenizers)
    return None if meant else suggestion


def _long(suggestion: Suggestion) -> list[str]:
    """Pieces that are long enough to be words."""
    return [piece for piece in suggestion.clip + suggestion.t5 if len(piece) >= LONGEST_PIECE]


def fault_of(caption: str, trigger: str) -> Fault | None:
    """What is wrong with the trigger word in a caption, the gravest only; None where all is as it should be.

    "written otherwise" is the word with other capitals, spaces or hyphens, or one slip away from it. T5 tells
    capitals apart; and where more than capitals differs, training puts the right word in front too.
    """
    trigger = trigger.strip()
    if not trigger:
        return None
    same = list(re.finditer(rf"(?<!\w){re.escape(trigger)}(?!\w)", caption, re.IGNORECASE))
    if not same:
        return "written otherwise" if _like(caption, trigger) else "missing"
    if len(same) > 1:
        return "twice"
    if same[0][0] != trigger:
        return "written otherwise"
    return "not first" if caption[: same[0].start()].strip() else None


def trigger_problem(path: Path, caption: str, trigger: str) -> Problem | None:
    """The fault of one caption as a warning. None for one that training mends (missing), or that may be meant."""
    fault = fault_of(caption, trigger)
    if fault == "twice":
        message, hint = f'The trigger word "{trigger}" is there twice', "Once is enough: it is learned by itself."
    elif fault == "written otherwise":
        message, hint = (
            f'The trigger word "{trigger}" is written otherwise',
            "Written one way it is one word to learn.",
        )
    else:
        return None
    return problem(path, "trigger", "warning", message, hint)


def faults_of(captions: Iterable[str], trigger: str) -> Counter[Fault]:
    """How many captions have which fault."""
    return Counter(fault for caption in captions if (fault := fault_of(caption, trigger)) is not None)


def _like(caption: str, trigger: str) -> bool:
    """Whether the caption has the trigger word with other joints, or with one slip."""
    loose = r"[\s_-]?".join(re.escape(char) for char in trigger if char not in " _-")
    if re.search(rf"(?<!\w){loose}(?!\w)", caption, re.IGNORECASE):
        return True
    wanted = trigger.lower()
    if len(wanted) < 4 or not wanted.isalnum():
        return False
    return any(_one_slip(word, wanted) for word in re.findall(r"\w+", caption.lower()))


def _one_slip(word: str, wanted: str) -> bool:
    """Whether one letter was changed, added or left out, or two neighbours changed places."""
    if word == wanted or abs(len(word) - len(wanted)) > 1:
        return False
    shorter = min(len(word), len(wanted))
    start = next((at for at in range(shorter) if word[at] != wanted[at]), shorter)
    a, b = word[start:], wanted[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])
