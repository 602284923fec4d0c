"""Whether a LoRA is the right thing at all: three questions, and what their answers mean.

The answers change nothing of the run but the recipe that is offered first; nobody has to answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from tui.setup.fields import Field
from tui.setup.notes import Note

UNASKED = ""

WANTS = (
    (UNASKED, "not said"),
    ("character", "one person, character or animal"),
    ("style", "a style: how pictures look"),
    ("product", "a product or object"),
    ("concept", "a concept: a pose, clothing, an effect"),
    ("prompted", "what a good prompt nearly gives already"),
    ("several", "several people together in one picture"),
    ("lettering", "readable text in pictures"),
    ("quality", "sharper or generally better pictures"),
)
COUNTS = (
    (UNASKED, "not said"),
    ("few", "fewer than 8"),
    ("some", "8 to 14"),
    ("enough", "15 to 60"),
    ("many", "more than 60"),
)
TRIED = (
    (UNASKED, "not said"),
    ("nothing", "nothing yet"),
    ("prompts", "prompts: they do not give it"),
    ("loras", "prompts and other people's LoRAs: neither gives it"),
)

FIELDS: tuple[Field, ...] = (
    Field("want", "It should learn", "choice", "", "One LoRA learns one thing best. The answer chooses the recipe",
          WANTS),
    Field("count", "Pictures of it", "choice", "", "Different views, light and backgrounds count more than number",
          COUNTS),
    Field("tried", "Tried so far", "choice", "", "The quickest LoRA is the one that need not be trained", TRIED),
)  # fmt: skip

_OF_WANT = {
    "character": Note("Right: this is what LoRAs do best. Each picture should show only this one", "good"),
    "style": Note("Right: let the subjects vary widely, so that only the style is common to all pictures", "good"),
    "product": Note("Right: show it from all sides and alone; small print on it will stay illegible", "good"),
    "concept": Note("Right, if the pictures differ in everything else: people, places, light", "good"),
    "prompted": Note("Describe it in one or two full sentences first: FLUX.1 follows them at no cost", "bad"),
    "several": Note("Train one LoRA for each of them instead: in one LoRA their features mix", "changed"),
    "lettering": Note("Not by a LoRA: put the words in quotes into the prompt, or set them in an editor", "bad"),
    "quality": Note("Not by a LoRA: more sampling steps, another guidance or an upscaler do that", "bad"),
}
_OF_COUNT = {
    "few": Note("Too few: it would learn these pictures by heart. Find more, or use an image-prompt adapter", "bad"),
    "some": Note("Enough for one face or object, if the pictures differ; few for a style", "changed"),
    "enough": Note("A good number", "good"),
    "many": Note("Plenty: quality over number, leave out the blurred and the doubled ones", "good"),
}
_OF_TRIED = {
    "nothing": Note("Look first whether somebody has trained it already, and what a long prompt gives", "changed"),
    "prompts": Note("Look through the LoRAs that others have trained too", ""),
    "loras": Note("Then train", "good"),
}


def notes_of(answers: Mapping[str, str]) -> dict[str, Note]:
    """What each answer means."""
    told = {"want": _OF_WANT, "count": _OF_COUNT, "tried": _OF_TRIED}
    return {name: notes[answers[name]] for name, notes in told.items() if answers.get(name) in notes}


def verdict(answers: Mapping[str, str]) -> Note:
    """All answers together, in a sentence."""
    kinds = [note.kind for note in notes_of(answers).values()]
    if "bad" in kinds:
        return Note("A LoRA is probably the wrong thing: see why below. You may go on all the same", "bad")
    if not kinds:
        return Note("Answer, or go straight on: nothing here is asked again")
    if "changed" in kinds:
        return Note("A LoRA can do it; mind what is said below", "changed")
    return Note("A LoRA is the right thing", "good")
