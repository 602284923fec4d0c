"""The box of a crop: it never leaves its picture, keeps its shape, and moves, grows and shrinks as asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import BucketConfig
from engine.dataset.buckets import bucket_sizes, place
from engine.dataset.crops import fits
from engine.dataset.sidecar import Crop
from tui.cropping import FREE, LEAST, SQUARE, Shape, drawn, moved, resized, scaled, shaped, shapes_for, whole
from tui.widgets.overlays import darkened, framed, masked

PICTURE = 800, 600


def test_moving_and_sizing() -> None:
    box = (100, 100, 200, 200)
    assert moved(box, PICTURE, 20, -30) == (120, 70, 200, 200)
    assert moved(box, PICTURE, 5000, -5000) == (600, 0, 200, 200)
    assert resized(box, PICTURE, 20, 0, FREE) == (100, 100, 220, 200)
    assert resized(box, PICTURE, 0, -5000, FREE) == (100, 100, 200, LEAST)
    assert resized(box, PICTURE, 5000, 0, FREE) == (0, 100, 800, 200)
    assert resized(box, PICTURE, 40, 0, SQUARE) == (100, 100, 240, 240)
    assert resized(box, PICTURE, 0, 40, SQUARE) == (100, 100, 240, 240)
    assert resized(box, PICTURE, 5000, 0, SQUARE) == (100, 0, 600, 600)
    assert scaled(box, PICTURE, 1.5, FREE) == (50, 50, 300, 300)
    assert scaled(box, PICTURE, 0.5, FREE) == (150, 150, 100, 100)
    assert scaled(whole(PICTURE), PICTURE, 2.0, FREE) == whole(PICTURE)
    assert shaped(whole(PICTURE), PICTURE, SQUARE) == (100, 0, 600, 600)
    assert shaped(box, PICTURE, FREE) == box
    assert drawn((300, 300), (100, 200), PICTURE, FREE) == (100, 200, 200, 100)
    assert drawn((300, 300), (100, 290), PICTURE, SQUARE) == (100, 100, 200, 200)


def test_shapes_begin_with_those_near_to_the_picture() -> None:
    shapes = shapes_for((1600, 1200), 1024, BucketConfig())
    assert shapes[:2] == (FREE, SQUARE) and shapes[2].name == "1152x896"
    assert {shape.name for shape in shapes[2:]} == {
        f"{w}x{h}" for w, h in bucket_sizes(1024**2, 256, 2048, 64) if w != h
    }
    box = shaped(whole((1600, 1200)), (1600, 1200), shapes[2])
    placed = place(box[2], box[3], 1024, BucketConfig())
    assert (placed.bucket_w, placed.bucket_h) == (1152, 896)
    assert shapes_for((1600, 1200), 1024, BucketConfig(enabled=False)) == (FREE, SQUARE)
    assert shapes_for((10, 10), 64, BucketConfig(step=512)) == (FREE, SQUARE)


sides = st.integers(1, 3000)
steps = st.integers(-4000, 4000)
shapes = st.sampled_from([FREE, SQUARE, Shape("wide", 1.75), Shape("narrow", 0.25), Shape("odd", 0.9371)])


@given(
    picture=st.tuples(sides, sides), keys=st.lists(st.tuples(st.integers(0, 4), steps, steps, shapes), max_size=12)
)
def test_no_keys_lead_out_of_the_picture(picture: tuple[int, int], keys: list[tuple[int, int, int, Shape]]) -> None:
    box: Crop = whole(picture)
    for kind, first, second, shape in keys:
        before = box
        match kind:
            case 0:
                box = moved(box, picture, first, second)
            case 1:
                box = resized(box, picture, first, 0, shape)
            case 2:
                box = resized(box, picture, 0, second, shape)
            case 3:
                box = scaled(box, picture, 1.06 if first > 0 else 1 / 1.06, shape)
            case _:
                box = shaped(box, picture, shape)
        assert min(box[:2]) >= 0 and min(box[2:]) >= 1 and fits(box, *picture), (kind, before, box)


@given(shape=st.sampled_from(shapes_for((1600, 1200), 1024, BucketConfig())[1:]), grow=st.lists(st.booleans()))
def test_a_shape_is_kept_to_the_pixel(shape: Shape, grow: list[bool]) -> None:
    picture = 1600, 1200
    box = shaped(whole(picture), picture, shape)
    for larger in grow:
        box = scaled(box, picture, 1.06 if larger else 1 / 1.06, shape)
        assert box[2:] == (box[2], max(1, min(round(box[2] / shape.ratio), picture[1])))


@pytest.mark.parametrize("ground", [0, 255])
def test_a_frame_is_seen_on_any_ground(ground: int) -> None:
    pixels = np.full((60, 80, 3), ground, np.uint8)
    out = framed(pixels, (0.25, 0.25, 0.75, 0.75), columns=40)
    changed = (out != pixels).any(axis=2)
    assert changed[15].any() and changed[44].any() and changed[:, 20].any() and changed[:, 59].any()
    assert not changed[16:44, 21:59].any() and not changed[:15].any() and not changed[45:].any()
    assert framed(pixels, None, 40) is pixels


def test_a_mask_reddens_what_counts_less() -> None:
    pixels = np.full((4, 4, 3), 100, np.uint8)
    mask = np.array([[255, 255, 0, 0]] * 4, np.uint8)
    out = masked(pixels, mask)
    assert (out[:, :2] == 100).all() and (out[:, 2:, 0] > 120).all() and (out[:, 2:, 1] < 80).all()
    assert masked(pixels, None) is pixels and (darkened(out, (0, 0, 0.5, 1))[:, :2] == 100).all()
