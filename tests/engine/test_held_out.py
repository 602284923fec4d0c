"""Held-out pictures: near-duplicates on one side, chosen by the pictures alone, in sensible numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pocket import pictures

from engine.config import DatasetConfig, FolderConfig, ValidationConfig
from engine.dataset.decoder import Decoder
from engine.dataset.held_out import choose, set_aside, wanted
from engine.dataset.likeness import CELLS, alike, look_of
from engine.dataset.scan import scan_dataset
from engine.events import EventLog
from engine.training.measured_pictures import split


def noise(side, seed=0):
    """A picture with broad shapes, as photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3))
    return np.kron(coarse, np.ones((side // 6 + 1, side // 6 + 1, 1)))[:side, :side].astype(np.uint8)


def test_the_same_picture_in_other_sizes_and_qualities_is_alike_and_others_are_not():
    one = noise(120, 1)
    dithered = np.clip(one.astype(int) + np.random.default_rng(2).integers(-12, 13, one.shape), 0, 255)
    looks = [look_of(one), look_of(dithered.astype(np.uint8)), look_of(noise(126, 3)), look_of(one[::2, ::2])]
    assert alike(looks) == [[0, 1, 3], [2]]


@given(st.integers(1, 40), st.integers(1, 40))
def test_every_size_has_a_look(height, width):
    look = look_of(np.full((height, width, 3), 9, dtype=np.uint8))
    assert look.shape == (CELLS * CELLS * 3,) and np.allclose(look, 9)


def test_likeness_is_passed_on():
    """The first and the third of a series differ by more than two neighbours do."""
    looks = [np.full(CELLS * CELLS * 3, value, dtype=np.float32) for value in (0, 6, 12, 40)]
    assert alike(looks) == [[0, 1, 2], [3]]
    assert alike([]) == []


@pytest.mark.parametrize(
    ("pictures", "count"), [(0, 0), (1, 0), (11, 0), (12, 3), (16, 3), (20, 4), (24, 5), (40, 8), (500, 8)]
)
def test_auto_takes_a_fifth_from_twelve_on(pictures, count):
    assert wanted(ValidationConfig(every_epochs="auto"), pictures) == count


def test_what_was_asked_for_leaves_one_to_train_on():
    assert wanted(ValidationConfig(every_epochs=1, held_out=5), 3) == 2
    assert wanted(ValidationConfig(every_epochs=1, held_out=0), 100) == 0
    assert wanted(ValidationConfig(every_epochs=0), 100) == 0
    assert wanted(ValidationConfig(every_epochs=0, every_steps=10), 100) == 8
    assert wanted(ValidationConfig(every_epochs=1, folder="somewhere"), 100) == 0


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=12),
    st.integers(1, 8),
    st.randoms(use_true_random=False),
)
def test_groups_stay_whole_and_something_is_left(sizes, count, random):
    numbers = list(range(sum(sizes)))
    groups = []
    for size in sizes:
        groups.append(numbers[:size])
        numbers = numbers[size:]
    hashes = [f"{number:04x}" for number in range(sum(sizes))]
    chosen = choose(hashes, groups, count)
    assert len(chosen) <= count and len(chosen) < sum(sizes)
    assert all(chosen.issuperset(group) or chosen.isdisjoint(group) for group in groups)
    shuffled = list(groups)
    random.shuffle(shuffled)
    assert choose(hashes, shuffled, count) == chosen
    if len(groups) > 1 and all(len(group) == 1 for group in groups):
        assert len(chosen) == min(count, len(groups) - 1)


def scanned(folder):
    with Decoder() as decoder:
        dataset = DatasetConfig(folders=(FolderConfig(path=folder),), resolution=64)
        return scan_dataset(dataset, decoder).samples


def test_a_renamed_dataset_is_split_the_same(tmp_path):
    here = pictures(tmp_path / "here", 16)
    there = tmp_path / "there"
    there.mkdir()
    for number, picture in enumerate(sorted(here.glob("*.png"), reverse=True)):
        (there / f"x{number:02d}.png").write_bytes(picture.read_bytes())
        (there / f"x{number:02d}.txt").write_text(picture.with_suffix(".txt").read_text())
    config = ValidationConfig(every_epochs=1, held_out=3)
    with Decoder() as decoder:
        first, second = (set_aside(scanned(folder), config, decoder) for folder in (here, there))
    assert len(first[1]) == 3 and len(first[0]) == 13
    assert {sample.content_hash for sample in first[1]} == {sample.content_hash for sample in second[1]}


def test_a_copy_of_a_picture_stays_on_its_side(tmp_path):
    folder = pictures(tmp_path / "data", 12)
    for picture in sorted(folder.glob("*.png")):
        (folder / f"copy-{picture.name}").write_bytes(picture.read_bytes())
        (folder / f"copy-{picture.stem}.txt").write_text("the same again")
    with Decoder() as decoder:
        training, held = set_aside(scanned(folder), ValidationConfig(every_epochs=1, held_out=4), decoder)
    assert len(held) == 4 and len(training) == 20
    assert {s.content_hash for s in held}.isdisjoint(s.content_hash for s in training)


def test_regularization_pictures_are_all_trained_on(tmp_path):
    dataset = DatasetConfig(
        folders=(
            FolderConfig(path=pictures(tmp_path / "data", 12)),
            FolderConfig(path=pictures(tmp_path / "reg", 8, "regularization"), regularization=True),
        ),
        resolution=64,
    )
    with Decoder() as decoder:
        samples = scan_dataset(dataset, decoder).samples
        training, held = set_aside(samples, ValidationConfig(every_epochs="auto"), decoder)
    assert len(held) == 3 and not any(sample.regularization for sample in held)
    assert sum(sample.regularization for sample in training) == 8


def test_a_folder_of_its_own_takes_nothing_from_the_dataset(tmp_path):
    from pocket import pocket_config

    own = pictures(tmp_path / "own", 3, "held_out")
    config = pocket_config(tmp_path, validation={"folder": own})
    events = EventLog()
    with Decoder() as decoder:
        samples = scanned(tmp_path / "data")
        training, held = split(samples, config, decoder, events)
    assert training == samples and len(held) == 3
