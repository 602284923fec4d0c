"""Sample prompts that show what a LoRA has learned, written from the captions it is trained on.

Captions and the trigger word go in, prompts of the four kinds (:data:`engine.config.PROMPT_KINDS`) come out, the same
ones for the same captions: two captions as they are trained on, two scenes that are new, one that lies far away, and
one without the trigger. Plain counting of words; whoever knows better edits what was written.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.config import PromptConfig, RunConfig
from engine.dataset.captions import final_caption


class Captioned(Protocol):
    """What is needed of a picture."""

    @property
    def caption(self) -> str:
        """Its file's text."""

    @property
    def regularization(self) -> bool:
        """Whether it shows the class without the concept."""


@dataclass(frozen=True)
class Templates:
    """Prompts to fill in: ``{subject}`` is what the captions call the concept, ``{trigger}`` the word alone, and
    ``{noun}`` the class without it."""

    scenes: tuple[str, ...]
    off_domain: tuple[str, ...]
    no_trigger: str
    plain: str
    """Without trigger, where the class has no word."""


SENTENCES = Templates(
    scenes=(
        "{subject} on a beach at sunset",
        "{subject} in a snowy forest, seen from far away",
        "{subject} at a crowded street market at night",
        "{subject} on the roof of a tall building in the rain",
        "{subject} in a bright kitchen, seen from above",
        "{subject} beside a waterfall in the jungle",
    ),
    off_domain=(
        "{subject} in an astronaut suit on the surface of the moon",
        "{subject} as a small bronze statue in a museum",
        "{subject} made of origami paper on a wooden desk",
    ),
    no_trigger="a {noun} in a park on a sunny day",
    plain="a photograph of a quiet street in the morning",
)

TAGS = Templates(
    scenes=(
        "{subject}, beach, sunset, ocean",
        "{subject}, snow, forest, wide shot",
        "{subject}, street market, crowd, night",
        "{subject}, rooftop, rain, city lights",
        "{subject}, kitchen, indoors, from above",
        "{subject}, waterfall, jungle",
    ),
    off_domain=(
        "{subject}, astronaut suit, moon, stars, space",
        "{subject}, bronze statue, museum",
        "{subject}, origami, paper, wooden desk",
    ),
    no_trigger="{noun}, park, sunny day",
    plain="street, morning, sunlight",
)

SCENES = 2
OFTEN = 0.5
"""A word, or a way of writing, that this share of the captions has is the captions' own."""

TAG_WORDS, TAG_PARTS = 3.0, 4.0
"""Captions of that many short parts are tags."""

_ARTICLES = frozenset(("a", "an", "the"))
_NO_NOUNS = _ARTICLES | frozenset((
    "about", "above", "across", "after", "against", "along", "amid", "among", "and", "are", "around", "as", "at",
    "be", "before", "behind", "below", "beneath", "beside", "between", "beyond", "but", "by", "can", "down",
    "during", "for", "from", "had", "has", "have", "her", "his", "holds", "in", "inside", "into", "is", "it", "its",
    "like", "looks", "near", "next", "no", "not", "of", "off", "on", "onto", "or", "our", "out", "outside", "over",
    "sits", "stands", "that", "their", "them", "these", "they", "this", "those", "through", "to", "toward",
    "towards", "under", "up", "upon", "was", "wearing", "wears", "were", "which", "while", "who", "whose", "with",
    "within", "without",
))  # fmt: skip


def prompts_for(
    samples: Iterable[Captioned], config: RunConfig, templates: Templates | None = None
) -> tuple[PromptConfig, ...]:
    """The prompts for a run of ``config`` on ``samples``.

    Args:
        templates: for a model that draws little; None takes what goes with the captions.
    """
    settings = config.dataset.captions.model_copy(update={"dropout": 0.0, "tag_dropout": 0.0, "shuffle": False})
    texts: tuple[list[str], list[str]] = [], []
    for sample in samples:
        text = final_caption(sample.caption, settings, config.seed, 0, 0, sample.regularization)
        texts[sample.regularization].append(text)
    return prompt_set(texts[0], settings.trigger_word.strip(), texts[1], templates, settings.separator.strip() or ",")


def prompt_set(
    captions: Sequence[str],
    trigger: str,
    others: Sequence[str] = (),
    templates: Templates | None = None,
    separator: str = ",",
) -> tuple[PromptConfig, ...]:
    """Prompts of the four kinds; fewer where there are no captions, or no trigger word to leave out.

    Args:
        captions: as they are trained on, with the trigger.
        trigger: the trigger word; empty for none.
        others: captions of pictures of the class without the concept.
    """
    own = sorted({caption.strip() for caption in captions} - {""})
    tags = _are_tags(own, separator)
    subject, noun = _tag_subject(own, trigger, separator) if tags else _subject(own, trigger)
    given = templates or (TAGS if tags else SENTENCES)
    found = [("caption", text) for text in _typical_and_rare(own, trigger)]
    if subject:
        fill = _filling(given, subject, trigger, _tail(own, trigger, separator))
        found += [("scene", text) for text in _newest(map(fill, given.scenes), own)[:SCENES]]
        found += [("off-domain", text) for text in _newest(map(fill, given.off_domain), own)[:1]]
    if trigger:
        known = _typical_and_rare(_of_the_class(sorted({text.strip() for text in others} - {""})), "")[:1]
        plain = given.no_trigger.replace("{noun}", noun) if noun else given.plain
        found += [("no trigger", _with_article(text)) for text in known or [plain]]
    checked = [PromptConfig.model_validate({"prompt": text, "kind": kind}) for kind, text in found]
    return tuple(one.model_copy(update={"seed": number}) for number, one in enumerate(checked, start=1))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['-][^\W_]+)*", text.lower())


def _typical_and_rare(captions: Sequence[str], trigger: str) -> list[str]:
    """The caption most like all the others, and the one least like them."""
    without = _NO_NOUNS | set(_words(trigger))
    bags = {caption: set(_words(caption)) - without for caption in captions}
    count = Counter(word for bag in bags.values() for word in bag)

    def typical(caption: str) -> float:
        bag = bags[caption]
        return sum(count[word] for word in bag) / math.sqrt(len(bag)) if bag else 0.0

    def common(caption: str) -> float:
        bag = bags[caption]
        return sum(count[word] for word in bag) / len(bag) if bag else math.inf

    if not captions:
        return []
    first = max(captions, key=typical)
    return [first, *sorted((one for one in captions if one != first), key=common)[:1]]


def _of_the_class(captions: Sequence[str]) -> list[str]:
    """Those about what most of them are about: a name that few captions have is one picture's own, not the class."""
    heads = {caption: _noun(re.sub(r"^(?:an?|the)\s", "", caption, flags=re.I)) for caption in captions}
    count = Counter(heads.values())
    most = max(count.values(), default=0)
    return [caption for caption in captions if count[heads[caption]] == most]


def _are_tags(captions: Sequence[str], separator: str) -> bool:
    parts = [part.split() for caption in captions for part in caption.split(separator) if part.strip()]
    if not parts:
        return False
    return len(parts) / len(captions) >= TAG_PARTS and sum(map(len, parts)) / len(parts) <= TAG_WORDS


def _tag_subject(captions: Sequence[str], trigger: str, separator: str) -> tuple[str, str]:
    """The trigger with the tags that most captions have, and those tags alone."""
    count = Counter(
        tag for caption in captions for tag in dict.fromkeys(part.strip() for part in caption.split(separator))
    )
    often = [tag for tag, times in count.most_common() if tag and times > OFTEN * len(captions)]
    shared = [tag for tag in often if tag.lower() != trigger.lower()][:2]
    return ", ".join([*([trigger] if trigger else []), *shared]), ", ".join(shared)


def _subject(captions: Sequence[str], trigger: str) -> tuple[str, str]:
    """The trigger as most captions write it, with article and class, and the class's word; empty where none is."""
    if not trigger:
        return "", ""
    place = re.compile(
        rf"(?:\b(an?|the)\s+)?(?<!\w){re.escape(trigger)}(?!\w)(,?\s*(?:an?\s|the\s)?)(.*)", re.I | re.S
    )
    matches = [match for caption in captions if (match := place.search(caption))]
    before = _most(((match[1] or "").lower() for match in matches), len(matches))
    noun = _most((_noun(match[3]) for match in matches), len(matches))
    joint = _most((match[2] for match in matches if _noun(match[3]) == noun), 0) if noun else ""
    subject = f"{before} {trigger}".strip()
    return f"{subject}{joint}{noun}", noun


def _noun(text: str) -> str:
    """The last word of what begins a text before a word that is no name of a thing; empty where that comes first."""
    found = ""
    for word in re.split(r"\s+", text.strip())[:3]:
        bare = word.rstrip(".,;:!?")
        if not bare.isalpha() or bare.lower() in _NO_NOUNS or bare.lower().endswith(("ing", "ly")):
            break
        found = bare.lower()
        if bare != word:
            break
    return found


def _most(values: Iterable[str], of: int) -> str:
    """The value there is most often, if that is often enough."""
    count = Counter(values)
    value, times = max(count.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    return value if times >= OFTEN * of else ""


def _tail(captions: Sequence[str], trigger: str, separator: str) -> str:
    """What most captions end in, where the trigger is in it: "in the style of" it."""
    ends = [caption.rpartition(separator) for caption in captions]
    last = _most((end.strip() for begin, _, end in ends if begin), len(captions)) if captions and trigger else ""
    return last if last.lower() != trigger.lower() and trigger.lower() in last.lower() else ""


def _filling(templates: Templates, subject: str, trigger: str, tail: str) -> Callable[[str], str]:
    def fill(template: str) -> str:
        if tail and templates is SENTENCES:
            return f"{template.replace('{subject}', 'a person')}, {tail}"
        return template.replace("{subject}", subject).replace("{trigger}", trigger)

    return fill


def _newest(prompts: Iterable[str], captions: Sequence[str]) -> list[str]:
    """Those first that share the fewest words with the captions, and are none of them."""
    known, words = set(captions), {word for caption in captions for word in _words(caption)}
    return sorted(prompts, key=lambda text: (text in known, len(set(_words(text)) & words)))


def _with_article(text: str) -> str:
    return re.sub(r"^a (?=[aeiou])", "an ", text)
