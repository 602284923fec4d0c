"""Buckets: equal to the reference to the pixel, and sound for every size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import BucketConfig
from engine.dataset.buckets import Placement, bucket_sizes, place, random_crop
from engine.errors import ConfigError, DatasetError

SIDES = st.integers(1, 20000)
CONFIGS = st.builds(
    BucketConfig,
    enabled=st.booleans(),
    no_upscale=st.booleans(),
    step=st.sampled_from([16, 32, 64]),
    min_side=st.sampled_from([64, 256, 320]),
    max_side=st.sampled_from([512, 1024, 2048]),
)


def test_golden_buckets(golden: Callable[[str], list[Path]]) -> None:
    """Bucket and resized size of 18 pictures under 24 settings, as kohya sd-scripts gives them."""
    (path,) = golden("buckets.json")
    cases = json.loads(path.read_text())["cases"]
    assert len(cases) == 24
    for case in cases:
        config = BucketConfig(
            min_side=case["min_bucket_reso"],
            max_side=case["max_bucket_reso"],
            step=case["bucket_reso_steps"],
            no_upscale=case["bucket_no_upscale"],
        )
        area = case["resolution_wh"][0] * case["resolution_wh"][1]
        if case["n_predefined"] is not None:
            assert len(bucket_sizes(area, config.min_side, config.max_side, config.step)) == case["n_predefined"]
        for row in case["rows"]:
            found = place(*row["image_wh"], tuple(case["resolution_wh"]), config)
            assert [found.bucket_w, found.bucket_h] == row["bucket_wh"], (case, row)
            assert [found.resized_w, found.resized_h] == row["resized_wh"], (case, row)


@given(SIDES, SIDES, st.sampled_from([512, 768, 1024]), CONFIGS)
def test_every_placement_is_sound(width: int, height: int, resolution: int, config: BucketConfig) -> None:
    """The crop lies in the resized picture, sides fit the model, and the aspect ratio bends by rounding only."""
    try:
        found = place(width, height, resolution, config)
    except DatasetError:
        assert config.no_upscale
        return
    assert found.bucket_w % 16 == found.bucket_h % 16 == 0
    assert min(found.bucket_w, found.bucket_h) > 0
    assert 0 <= found.left <= found.resized_w - found.bucket_w
    assert 0 <= found.top <= found.resized_h - found.bucket_h
    assert abs(found.left * 2 - (found.resized_w - found.bucket_w)) <= 1
    assert abs(width * found.resized_h - height * found.resized_w) <= (width + height) / 2 + 1
    if config.no_upscale and config.enabled:
        assert found.resized_w <= width and found.resized_h <= height
    elif config.enabled:
        assert min(found.resized_w - found.bucket_w, found.resized_h - found.bucket_h) == 0


@given(SIDES, SIDES, st.integers(0, 2**40), st.integers(0, 100), st.integers(0, 10000))
def test_random_crops_stay_inside_and_repeat(width: int, height: int, seed: int, epoch: int, slot: int) -> None:
    """The same epoch and slot crop alike; the bucket and scale never change."""
    centre = place(width, height, 512, BucketConfig())
    crop = random_crop(centre, seed, epoch, slot)
    assert crop == random_crop(centre, seed, epoch, slot)
    assert (crop.bucket_w, crop.bucket_h, crop.resized_w) == (centre.bucket_w, centre.bucket_h, centre.resized_w)
    assert 0 <= crop.left <= crop.resized_w - crop.bucket_w
    assert 0 <= crop.top <= crop.resized_h - crop.bucket_h


def test_random_crops_differ_between_epochs() -> None:
    """A wide picture is cropped at many places."""
    centre = place(4000, 1000, 512, BucketConfig(enabled=False))
    assert len({random_crop(centre, 1, epoch, 0).left for epoch in range(50)}) > 20


def test_without_buckets_every_picture_becomes_the_square() -> None:
    """One bucket of the resolution: scaled to cover it, cropped at the centre."""
    assert place(300, 100, 512, BucketConfig(enabled=False)) == Placement(512, 512, 1536, 512, 512, 0)


def test_settings_without_a_bucket_are_refused() -> None:
    """The error names the setting and what would do."""
    with pytest.raises(ConfigError, match="multiple of 16"):
        place(100, 100, 500, BucketConfig(enabled=False))
    with pytest.raises(ConfigError, match="step is 512"):
        place(100, 100, 128, BucketConfig(step=512))
    with pytest.raises(ConfigError, match="min_side 512 is above max_side 256"):
        place(100, 100, 512, BucketConfig(min_side=512, max_side=256))


def test_too_small_for_a_step_without_enlarging() -> None:
    """A sliver of a picture gets an error with its figures instead of a bucket of no width."""
    with pytest.raises(DatasetError, match="40 x 900"):
        place(40, 900, 512, BucketConfig(no_upscale=True))
    with pytest.raises(DatasetError, match="without pixels"):
        place(0, 10, 512, BucketConfig())
