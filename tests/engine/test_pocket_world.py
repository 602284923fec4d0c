"""The pocket model's world: its checker is right on real renders, its detector on real concepts, its words on all."""

from __future__ import annotations

import random

import pytest

from engine.models.pocket.check import read, read_concept, shows_concept
from engine.models.pocket.concept import TRIGGER, concept_caption, concept_set, render_concept
from engine.models.pocket.scenes import (
    BACKGROUNDS,
    COLOURS,
    CONCEPT_COLOURS,
    POSITIONS,
    SHAPES,
    Jitter,
    Scene,
    all_combinations,
    caption,
    held_out,
    named_looks,
    odd_word,
    random_jitter,
    random_named_scene,
    random_rich_scene,
    random_scene,
    render,
)


def test_the_grammar_is_as_large_as_promised() -> None:
    assert len(SHAPES) >= 6 and len(COLOURS) >= 8 and len(BACKGROUNDS) >= 5 and len(POSITIONS) >= 5
    unseen = sum(held_out(combination) for combination in all_combinations())
    assert 0.08 < unseen / len(all_combinations()) < 0.15


@pytest.mark.parametrize("shape", SHAPES)
def test_the_checker_reads_every_real_render_right(shape: str) -> None:
    draw = random.Random(f"check {shape}")
    wrong = []
    for combination in all_combinations():
        if combination[0] == shape:
            reading = read(render(Scene(*combination), random_jitter(draw)))
            found = (reading.shape, reading.colour, reading.background, reading.position)
            if found != combination:
                wrong.append((combination, found))
    assert not wrong


def test_an_empty_picture_shows_nothing() -> None:
    empty = render(Scene("circle", "red", "gray", "left"), Jitter(scale=0.0))
    reading = read(empty)
    assert (reading.background, reading.shape, reading.colour) == ("gray", "", "")


def test_the_detector_fires_on_every_zorple() -> None:
    draw = random.Random("detector")
    missed = [
        (position, background, reading)
        for position in POSITIONS
        for background in BACKGROUNDS
        for _ in range(2)
        if not (reading := read_concept(render_concept(position, background, random_jitter(draw)))).shown
    ]
    assert not missed


def test_the_detector_fires_on_nothing_else() -> None:
    draw = random.Random("other")
    for kind in (random_scene, random_rich_scene, random_named_scene):
        assert not any(shows_concept(render(kind(draw), random_jitter(draw))) for _ in range(80))


def test_the_base_never_sees_the_two_colours_of_the_concept_together() -> None:
    draw = random.Random("colours")
    scenes = [random_rich_scene(draw) for _ in range(3000)] + list(named_looks().values())
    assert not any({scene.colour, scene.second} == set(CONCEPT_COLOURS) for scene in scenes)


def test_the_base_never_sees_a_held_out_combination() -> None:
    draw = random.Random("unseen")
    assert not any(held_out(random_scene(draw).combination) for _ in range(3000))


def test_the_trigger_is_none_of_the_base_models_words() -> None:
    assert TRIGGER not in named_looks()
    assert TRIGGER not in {odd_word(random.Random(i)) for i in range(5000)}


def test_captions_say_the_scene() -> None:
    assert caption(Scene("star", "red", "white", "left")) == "a red star at the left on a white background"
    rich = Scene("ring", "red", "sky", "centre", "striped", "blue", True)
    assert caption(rich) == "a red and blue striped ring with eyes in the centre on a sky background"
    assert concept_caption("top", "sand") == "a zorple at the top on a sand background"


def test_drawing_is_a_function_of_its_arguments() -> None:
    first, second = (concept_set(24, 1) for _ in range(2))
    assert [text for _, text in first] == [text for _, text in second]
    assert all(a.tobytes() == b.tobytes() for (a, _), (b, _) in zip(first, second, strict=True))
    assert len({text for _, text in first}) == 24
