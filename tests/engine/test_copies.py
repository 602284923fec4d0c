"""Copies of training pictures are told from new pictures of the same thing."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from engine.dataset.copies import FARTHEST, NEAREST, CopyAlarm
from engine.models.pocket.concept import concept_caption, concept_set, render_concept
from engine.models.pocket.scenes import BACKGROUNDS, POSITIONS, SIZE, random_jitter


def array(image):
    return np.asarray(image.convert("RGB"))


def scenery(seed, side=96):
    """A picture with the statistics of a photograph: structure of every size, the coarser the stronger."""
    draw = np.random.default_rng(seed)
    down, right = np.fft.fftfreq(side)[:, None] * side, np.fft.rfftfreq(side)[None] * side
    spectrum = np.fft.rfft2(draw.normal(size=(3, side, side))) / np.maximum(1, np.hypot(down, right)) ** 1.2
    values = np.fft.irfft2(spectrum, s=(side, side))
    values = 0.3 * values + 0.7 * values.mean(axis=0)
    values = (values - values.mean()) / values.std() * 55 + 120
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def moved(image, by=(3, -2)):
    return Image.fromarray(np.roll(array(image), by, axis=(0, 1)))


def noisy(image):
    values = array(image) + np.random.default_rng(1).normal(0, 12, array(image).shape)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


COPIES = {
    "the same": lambda image: image,
    "moved": moved,
    "mirrored": ImageOps.mirror,
    "lighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.85),
    "paler": lambda image: ImageEnhance.Color(image).enhance(0.6),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "noisy": noisy,
    "another size": lambda image: image.resize((160, 160)),
    "mirrored, moved and lighter": lambda image: ImageEnhance.Brightness(moved(ImageOps.mirror(image))).enhance(1.1),
}


@pytest.fixture(scope="module")
def scenes():
    return [scenery(seed) for seed in range(20)]


@pytest.mark.parametrize("name", COPIES)
def test_every_copy_of_a_photograph_is_found(scenes, name):
    alarm = CopyAlarm([array(scene) for scene in scenes])
    for number, scene in enumerate(scenes):
        near = alarm.nearest(array(COPIES[name](scene)))
        assert near is not None and near.copied and near.number == number


def test_no_other_photograph_is_called_a_copy(scenes):
    alarm = CopyAlarm([array(scene) for scene in scenes])
    assert alarm.limit > 0.1
    found = [alarm.nearest(array(scenery(seed))) for seed in range(100, 200)]
    assert not any(near.copied for near in found)


def fresh(count, captions):
    """New renders of the demo's creature: where no training picture has it, and where one has it all but exactly."""
    draw = random.Random(5)
    elsewhere, there = [], []
    while len(elsewhere) < count or len(there) < count:
        position, ground = draw.choice(list(POSITIONS)), draw.choice(list(BACKGROUNDS))
        side = there if concept_caption(position, ground) in captions else elsewhere
        side.append(array(render_concept(position, ground, random_jitter(draw))))
    return elsewhere[:count], there[:count]


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 4))])
def test_new_pictures_of_the_same_concept_are_rarely_called_copies(seed):
    """The demo's world is as hard as it gets: one creature on flat grounds, so that every picture is nearly a moved
    copy of another one."""
    data = concept_set(16, seed)
    alarm = CopyAlarm([array(picture) for picture, _ in data])
    elsewhere, there = fresh(250, {caption for _, caption in data})
    rates = [np.mean([alarm.nearest(one).copied for one in side]) for side in (elsewhere, there)]
    assert rates[0] <= 0.05 and rates[1] <= 0.15
    for name in ("the same", "mirrored"):
        assert all(alarm.nearest(array(COPIES[name](picture))).copied for picture, _ in data)
    assert np.mean([alarm.nearest(array(moved(picture, (1, 1)))).copied for picture, _ in data]) >= 0.9


def test_how_near_is_too_near_follows_from_the_training_pictures(scenes):
    alike = [array(moved(scenes[0], (0, number))) for number in range(6)]
    assert CopyAlarm(alike).limit < 0.01
    twice = [array(scene) for scene in [*scenes, scenes[0]]]
    assert CopyAlarm(twice).limit > 0.1  # one picture that is there twice says nothing of the others
    assert CopyAlarm([array(scenes[0])]).limit == NEAREST
    assert all(NEAREST <= CopyAlarm(some).limit <= FARTHEST for some in (alike, twice))


def test_pictures_without_structure_are_left_alone(scenes):
    flat = np.full((SIZE, SIZE, 3), 200, np.uint8)
    assert CopyAlarm([flat, flat]).nearest(array(scenes[0])) is None
    assert CopyAlarm([array(scenes[0]), flat]).nearest(flat) is None
    near = CopyAlarm([flat, array(scenes[0])]).nearest(array(scenes[0]))
    assert near is not None and near.number == 1 and near.copied
    assert CopyAlarm([]).nearest(flat) is None


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 200, 3), (7, 5, 3)])
def test_the_smallest_pictures_do_no_harm(shape):
    tiny = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    near = CopyAlarm([tiny, 255 - tiny]).nearest(tiny)
    assert near is None or 0 <= near.distance <= 2
