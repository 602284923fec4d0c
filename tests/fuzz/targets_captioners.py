"""Targets of captioning by machine: lists of tags, configs of models, drafts, answers, and texts compared by word."""

from __future__ import annotations

from engine.captioners.answers import MAX_CHARACTERS, cleaned
from engine.captioners.drafts import Draft, draft_path, load_draft, save_draft
from engine.captioners.found import recognise
from engine.captioners.request import Tagging
from engine.captioners.tags import chosen_tags, read_tags
from engine.captioners.word_diff import choices_in, merged, pieces_of
from engine.dataset.captions import caption_text
from engine.errors import DatasetError, ModelFileError
from tests.fuzz.target import Target, as_file, assert_harmless, scratch, text_of


def _tags(data: bytes) -> None:
    tags = read_tags(as_file(data, "selected_tags.csv"))
    line = chosen_tags(tags, [0.9] * len(tags.names), Tagging(rating=True))
    assert_harmless(*line.split(", "))


def _config(data: bytes) -> None:
    folder = as_file(data, "config.json").parent
    (folder / "model.safetensors").write_bytes(b"weights")
    assert_harmless(recognise(folder).name)


def _draft_seeds() -> list[bytes]:
    picture = scratch() / "seed.png"
    save_draft(picture, Draft("a cat, é", "joy", "Describe it.", 1.5, 7, "taken"))
    plain = (
        b'{"version": 1, "text": "a", "model": "m", "prompt": "", "made_at": 1, "picture_bytes": 2, "verdict": ""}'
    )
    return [draft_path(picture, "joy").read_bytes(), plain]


def _draft(data: bytes) -> None:
    draft = load_draft(as_file(data, "a.png.json"))
    assert draft is not None
    assert_harmless(draft.text, draft.model)


def _answer(data: bytes) -> None:
    text = text_of(data)
    line = cleaned(text)
    assert_harmless(line)
    assert "\n" not in line and len(line) <= MAX_CHARACTERS and cleaned(line) == line
    assert caption_text(line.encode(), scratch() / "a.txt") == line
    pieces = pieces_of(text, line)
    assert merged(pieces, ()) == text and merged(pieces, choices_in(pieces)) == line


TARGETS = (
    Target(
        "tagger-tags", _tags, (ModelFileError, DatasetError),
        lambda: [b"tag_id,name,category,count\n1,red_hair,0,5\n2,\"a,b\",4,1\n", b"name,category\n^_^,9\n"],
        ("engine.captioners.tags.read_tags",),
    ),
    Target(
        "captioner-config", _config, (ModelFileError,),
        lambda: [b'{"model_type": "llava", "vision_config": {"a": [1]}}', b'{"model_type": "blip"}'],
        ("engine.captioners.found.recognise",),
        (b'{"model_type": "llava", "vision_config": {"attn_implementation": "a/b"}}', b"[" * 100_000),
    ),
    Target("machine-draft", _draft, (DatasetError,), _draft_seeds, ("engine.captioners.drafts.load_draft",)),
    Target(
        "machine-answer", _answer, (),
        lambda: [b'"A cat\n on a mat."', b"a\x00\x1b[31m\xe2\x80\xaeb", b"\xc2\x85 \xc2\xa0x"],
        ("engine.captioners.answers.cleaned", "engine.captioners.word_diff.pieces_of"),
    ),
)  # fmt: skip
