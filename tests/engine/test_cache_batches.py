"""Batches of pictures: a function of the dataset alone, so an interrupted cache ends with the same bits."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.cache import latents
from engine.cache.latents import View, batch_size, cache_latents, encode_pixels, latent_key
from engine.cache.store import Store, content_key
from engine.config import DatasetConfig, FolderConfig
from engine.dataset.buckets import Placement
from engine.dataset.decoder import Decoder
from engine.dataset.scan import Sample
from engine.errors import CacheError

SQUARE = Placement(bucket_w=64, bucket_h=64, resized_w=64, resized_h=64, left=0, top=0)
WIDE = Placement(bucket_w=128, bucket_h=32, resized_w=128, resized_h=32, left=0, top=0)
LARGE = Placement(bucket_w=1024, bucket_h=1024, resized_w=1365, resized_h=1024, left=170, top=0)
IN_BATCH = 3


class Levels:
    """A decoder whose pictures are one grey each, told by their file."""

    workers = 3

    def __init__(self) -> None:
        self.decoded: list[str] = []

    def pixels(
        self, path: Path, placement: Placement, background: str, flip: bool, *_: object
    ) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Bucket-sized grey."""
        self.decoded.append(path.name)
        return np.full((placement.bucket_h, placement.bucket_w, 3), path.read_bytes()[0], dtype=np.uint8)


@dataclass
class Gossip:
    """An encoder that mixes everything of a batch into each row: other company, place or size, other bits."""

    room: int = 1000
    sizes: list[int] = field(default_factory=list)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Latents that know their batch."""
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        self.sizes.append(len(pixels))
        levels = pixels.mean(dim=(1, 2, 3))
        weights = torch.arange(1, len(levels) + 1) * 0.01
        mixed = levels + (levels * weights).sum() + weights
        mean = mixed[:, None, None, None].repeat(1, 16, pixels.shape[2] // 8, pixels.shape[3] // 8)
        return mean, torch.ones_like(mean)

    def to(self, device: object) -> Gossip:
        """Stay."""
        return self


class Killed(Exception):
    """The process ends here."""


@dataclass
class Bench:
    """A dataset of two buckets, 7 and 4 pictures, and what was seen of its caching."""

    root: Path
    views: list[View]
    config: DatasetConfig
    decoder: Levels = field(default_factory=Levels)
    notes: list[str] = field(default_factory=list)
    encoder: Gossip = field(default_factory=Gossip)
    done: int = 0
    stopped_after: int = 99
    killed_after: int = 99

    def fill(self, store: Store, views: list[View] | None = None) -> dict[View, str]:
        decoder: Any = self.decoder
        encoder: Any = self.encoder
        self.decoder.decoded.clear()
        self.done = 0
        return cache_latents(
            views or self.views, self.config, store, decoder, lambda: encoder, "ae", self.told,
            lambda: self.done >= self.stopped_after, self.notes.append,
        )  # fmt: skip

    def told(self, done: int, _total: int, _name: str) -> None:
        self.done = done
        if done == self.killed_after:
            raise Killed

    def held(self, store: Store) -> dict[str, float]:
        found = {}
        for view in self.views:
            key = latent_key(view, self.config, "ae")
            entry = store.get(key)
            if entry is not None:
                found[key] = float(entry["mean"][0, 0, 0])
        return found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(latents, "MOST_IN_BATCH", IN_BATCH)
    monkeypatch.setattr(latents, "free_gpu", lambda: None)  # a full collection each time
    views = []
    for number in range(11):
        path = tmp_path / f"{number:02d}.png"
        path.write_bytes(bytes([20 * number + 5, number]))
        sample = Sample(
            index=number, path=path, name=path.name, caption_path=None, caption="", width=64, height=64, repeats=1,
            regularization=False,
        )  # fmt: skip
        views.append(View(sample, WIDE if number % 3 == 1 else SQUARE))
    return Bench(tmp_path, views, DatasetConfig(folders=(FolderConfig(path=tmp_path),)))


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_interrupted_at_every_entry_it_ends_with_the_same_bits(bench: Bench, tmp_path: Path, how: str) -> None:
    whole = Store(tmp_path / "whole")
    bench.fill(whole)
    wanted = bench.held(whole)
    assert len(set(wanted.values())) == len(wanted) == 11
    for last in range(1, 12):
        store = Store(tmp_path / str(last))
        bench.killed_after, bench.stopped_after = (last, 99) if how == "killed" else (99, last)
        with contextlib.suppress(Killed):
            bench.fill(store)
        bench.killed_after = bench.stopped_after = 99
        assert store.stats().entries == last
        again = Store(store.root)
        bench.fill(again)
        assert bench.held(again) == wanted, last


def test_what_stands_and_in_which_order_views_come_changes_nothing(bench: Bench, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    bench.fill(store)
    wanted = bench.held(store)
    for seed in range(6):
        draw = random.Random(seed)
        for key in draw.sample(sorted(wanted), draw.randint(1, 11)):
            store.path(key).unlink()
        shuffled = draw.sample(bench.views, len(bench.views))
        bench.fill(Store(store.root), [*shuffled, *shuffled[:3]])
        assert bench.held(Store(store.root)) == wanted


def test_a_batch_of_which_one_is_missing_is_encoded_whole(bench: Bench, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    keys = bench.fill(store)
    assert bench.encoder.sizes == [IN_BATCH] * 5, "7 and 4 pictures by threes; short batches are filled up"
    before = {key: store.path(key).stat().st_mtime_ns for key in keys.values()}
    gone = sorted(key for view, key in keys.items() if view.placement == SQUARE)[1]
    store.path(gone).unlink()
    bench.encoder.sizes.clear()
    bench.fill(Store(store.root))
    assert bench.encoder.sizes == [IN_BATCH]
    assert len(bench.decoder.decoded) == IN_BATCH
    after = {key: store.path(key).stat().st_mtime_ns for key in keys.values()}
    assert {key for key in before if before[key] != after[key]} == {gone}, "what stood is left alone"


def test_memory_that_does_not_hold_a_batch(bench: Bench, tmp_path: Path) -> None:
    bench.encoder.room = 1
    keys = bench.fill(Store(tmp_path / "cache"))
    assert len(keys) == 11
    assert bench.encoder.sizes == [1] * 11
    assert len(bench.notes) == 1
    assert "one at a time" in bench.notes[0]
    assert "2 GiB" in bench.notes[0]
    bench.encoder.room = 0
    with pytest.raises(CacheError, match="memory"):
        bench.fill(Store(tmp_path / "other"))


def test_batches_are_sized_by_pixels() -> None:
    sizes = {
        (1024, 1024): 1,
        (832, 1216): 1,
        (768, 768): 1,
        (704, 704): 2,
        (512, 512): 4,
        (640, 384): 4,
        (256, 256): 16,
    }
    for (width, height), wanted in {**sizes, (64, 64): 16, (2048, 2048): 1}.items():
        found = batch_size(Placement(width, height, width, height, 0, 0))
        assert found == wanted
        assert found == 1 or found * width * height <= 1024 * 1024


def test_latents_cached_before_there_were_batches_are_still_right(bench: Bench) -> None:
    """A picture of 1024 px is encoded alone from all its pixels, as it was: so is its key, to the letter."""
    view = replace(bench.views[0], placement=LARGE)
    assert latent_key(view, bench.config, "ae") == content_key(
        kind="latents", version=1, picture=view.sample.content_hash, bucket="1024x1024", resized="1365x1024",
        crop="170,0", flip=False, background="white", encoder="ae",
    )  # fmt: skip


def test_the_key_knows_the_batch_and_the_reduction(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    view = bench.views[0]
    phone = replace(view, sample=replace(view.sample, width=4096, height=3072, format="JPEG"), placement=LARGE)
    keys = {latent_key(view, bench.config, "ae"), latent_key(phone, bench.config, "ae")}
    keys.add(latent_key(replace(phone, sample=replace(phone.sample, format="PNG")), bench.config, "ae"))
    monkeypatch.setattr(latents, "MOST_IN_BATCH", 5)
    keys.add(latent_key(view, bench.config, "ae"))
    assert len(keys) == 4


def test_one_decoder_serves_too() -> None:
    given: latents.Pixels = Decoder()
    assert given.workers == 1


def test_short_batches_are_filled_with_grey() -> None:
    class Watching(Gossip):
        def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
            assert pixels.shape == (4, 3, 64, 64)
            assert pixels.is_contiguous()
            assert float(pixels[0].max()) == 1.0
            assert not pixels[1:].any()
            return super().encode(pixels)

    watching: Any = Watching()
    assert len(encode_pixels([np.full((64, 64, 3), 255, np.uint8)], 4, watching)) == 1
