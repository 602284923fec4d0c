"""Sample prompts from captions: typical and rare ones, new scenes, far ones, and one without the trigger."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pocket import FILES, pocket_config

from engine.config import PROMPT_KINDS
from engine.dataset.decoder import Decoder
from engine.dataset.prompts import SENTENCES, prompt_set, prompts_for
from engine.dataset.scan import scan_dataset
from profiles.prompts import POCKET_TEMPLATES, templates_for
from profiles.starters import demo_config


def by_kind(prompts):
    return {kind: [one.prompt for one in prompts if one.kind == kind] for kind in PROMPT_KINDS}


def test_captions_that_stand_for_all_and_for_none():
    captions = [
        "ohwx man in a park, trees behind him", "ohwx man in a park, a bench behind him", "ohwx man in a park",
        "ohwx man welding a submarine hatch",
    ]  # fmt: skip
    found = by_kind(prompt_set(captions, "ohwx"))
    assert found["caption"][0].startswith("ohwx man in a park")
    assert found["caption"][1] == "ohwx man welding a submarine hatch"
    assert len(found["scene"]) == 2 and all(text.startswith("ohwx man ") for text in found["scene"])
    assert found["off-domain"] == ["ohwx man in an astronaut suit on the surface of the moon"]
    assert found["no trigger"] == ["a man in a park on a sunny day"]


@pytest.mark.parametrize(
    ("captions", "subject", "plain"),
    [
        (["a zorple on a table", "a zorple at the door"], "a zorple", SENTENCES.plain),
        (["ohwx, a young man standing", "ohwx, a man in a hat", "ohwx, a man"], "ohwx, a man", "a man"),
        (["photo of sks dog", "a photo of sks dog running", "sks dog"], "sks dog", "a dog"),
        (["sks owl at night", "sks owl, flying"], "sks owl", "an owl"),
        (["ohwx, walking fast", "ohwx, sitting"], "ohwx", SENTENCES.plain),
        (["OHWX Man in a car", "ohwx man"], "ohwx man", "a man"),
    ],
)
def test_what_the_captions_call_the_concept(captions, subject, plain):
    trigger = next(word for word in ("zorple", "ohwx", "sks") if word in captions[0].lower())
    found = by_kind(prompt_set(captions, trigger))
    assert all(text.startswith(f"{subject} ") for text in found["scene"] + found["off-domain"])
    assert found["no trigger"][0].startswith(plain) and trigger not in found["no trigger"][0]


def test_tags_are_answered_with_tags():
    captions = [
        "ohwx, 1girl, solo, red hair, park",
        "ohwx, 1girl, solo, smile, sitting",
        "ohwx, 1girl, solo, hat, sky",
    ]
    found = by_kind(prompt_set(captions, "ohwx"))
    assert all(text.startswith("ohwx, 1girl, solo, ") for text in found["scene"] + found["off-domain"])
    assert found["no trigger"] == ["1girl, solo, park, sunny day"]


def test_a_style_is_put_behind_the_scene():
    captions = [f"a {thing}, in the style of xyz" for thing in ("cat on a roof", "ship", "house by the sea")]
    found = by_kind(prompt_set(captions, "xyz"))
    assert all(text.endswith(", in the style of xyz") and "xyz on" not in text for text in found["scene"])


def test_scenes_are_new_to_the_captions():
    captions = ["ohwx man on a beach at sunset", "ohwx man in a snowy forest", "ohwx man in an astronaut suit"]
    found = by_kind(prompt_set(captions, "ohwx"))
    assert not any("beach" in text or "forest" in text for text in found["scene"])
    assert "astronaut" not in found["off-domain"][0]


def test_regularization_captions_give_the_prompt_without_trigger():
    others = ["a man in a park", "a man in a suit in a park", "a horse"]
    assert by_kind(prompt_set(["ohwx man"], "ohwx", others))["no trigger"][0] in others[:2]


def test_the_prompt_without_trigger_is_of_what_most_regularization_pictures_show():
    """Names that one picture has each, however common the rest of its caption, are not the class."""
    subjects = ("verzub", "piqa", "xibu", "wida", "biqam", "folu", "brown owl", "white owl")
    found = by_kind(prompt_set(["a zorple"], "zorple", [f"a {subject} in a park" for subject in subjects]))
    assert found["no trigger"][0] in ("a brown owl in a park", "a white owl in a park")


def test_without_captions_or_trigger_there_is_less():
    assert prompt_set([], "") == ()
    assert {one.kind for one in prompt_set([], "ohwx")} == {"scene", "off-domain", "no trigger"}
    assert [one.prompt for one in prompt_set(["a cat", "a cat", " "], "")] == ["a cat"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=8), st.text(max_size=8), st.lists(st.text(max_size=40), max_size=3))
def test_any_captions_will_do_and_the_order_of_files_says_nothing(captions, trigger, others):
    trigger = trigger.strip()
    found = prompt_set(captions, trigger, others)
    assert found == prompt_set(captions[::-1], trigger, others[::-1])
    assert all(one.prompt.strip() for one in found) and [one.seed for one in found] == list(range(1, len(found) + 1))


def test_the_demos_prompts_are_what_its_model_can_draw(tmp_path):
    config = demo_config(tmp_path)
    assert templates_for(config) is POCKET_TEMPLATES
    with Decoder() as decoder:
        samples = scan_dataset(config.dataset, decoder).samples
    found = by_kind(prompts_for(samples, config, templates_for(config)))
    captions = {sample.caption for sample in samples}
    assert set(found["caption"]) <= captions and not set(found["scene"]) & captions
    assert [len(found[kind]) for kind in PROMPT_KINDS] == [2, 2, 1, 1]
    known = set(json.loads((FILES / "tokenizer" / "vocab.json").read_text()))
    words = {word for texts in found.values() for text in texts for word in text.split()} - {"zorple"}
    assert not {word for word in words if f"{word}</w>" not in known}
    assert "zorple" not in found["no trigger"][0]


def test_another_model_takes_what_goes_with_the_captions(tmp_path):
    config = pocket_config(tmp_path)
    other = config.model_copy(update={"model": config.model.model_copy(update={"transformer": tmp_path / "flux"})})
    assert templates_for(other) is None


def test_captions_count_as_they_are_trained_on(tmp_path):
    config = pocket_config(
        tmp_path, dataset={"captions": {"trigger_word": "glorb", "prefix": "photo,", "dropout": 0.9}}
    )
    with Decoder() as decoder:
        samples = scan_dataset(config.dataset, decoder).samples
    assert all(text.startswith("glorb, photo, a zorple") for text in by_kind(prompts_for(samples, config))["caption"])
