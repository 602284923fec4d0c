"""The caching stages: only what is missing is encoded, damage is redone, and the encoder is gone afterwards."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.cache.latents import View, cache_latents, latent_key
from engine.cache.store import Store
from engine.cache.text import cache_text, text_key
from engine.config import DatasetConfig, FolderConfig
from engine.dataset.buckets import Placement
from engine.dataset.scan import Sample
from engine.errors import CacheError, DatasetError, DiskError

PLACE = Placement(bucket_w=64, bucket_h=64, resized_w=64, resized_h=80, left=0, top=8)


class FakeDecoder:
    """Pixels that depend on path and placement only; notes every call."""

    workers = 2

    def __init__(self) -> None:
        self.calls: list[tuple[Path, Placement, str, bool]] = []
        self.threads: set[str] = set()

    def pixels(self, path: Path, placement: Placement, background: str, flip: bool, *_: object) -> np.ndarray:
        self.calls.append((path, placement, background, flip))
        self.threads.add(threading.current_thread().name)
        if path.read_bytes() == b"broken":
            raise DatasetError("A picture cannot be decoded", path.name)
        level = np.uint8(sum(path.read_bytes()) % 256)
        return np.full((placement.bucket_h, placement.bucket_w, 3), level, dtype=np.uint8)


@dataclass
class FakeAutoencoder:
    """Means of 8x8 cells; ``bad`` gives NaN for pictures of that level."""

    bad: float | None = None
    device: str = "gpu"
    batches: int = 0
    oom: bool = False

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        self.batches += 1
        if self.oom:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        mean = torch.nn.functional.avg_pool2d(pixels.mean(1, keepdim=True), 8).repeat(1, 16, 1, 1)
        for row, picture in enumerate(pixels):
            if self.bad is not None and abs(float(picture.mean()) - self.bad) < 1e-4:
                mean[row, :, 0, 0] = float("nan")
        return mean, torch.full_like(mean, 0.1)

    def to(self, device: object) -> FakeAutoencoder:
        self.device = str(device)
        return self


@dataclass(frozen=True)
class Embeds:
    pooled: Tensor
    states: Tensor
    mask: Tensor


class FakeTextEncoder:
    """Embeddings that depend on the caption's letters; notes captions and whether it was closed."""

    def __init__(self, dtype: torch.dtype = torch.float32, bad: str = "") -> None:
        self.dtype, self.bad = dtype, bad
        self.seen: list[str] = []
        self.calls = 0
        self.remark = "slow memory"
        self.closed = False

    def encode_each(self, captions: Sequence[str], told: Callable[[int, int], None]) -> Iterator[Embeds]:
        self.calls += 1
        for number in range(2 * len(captions)):
            told(number, 2 * len(captions))
        for caption in captions:
            self.seen.append(caption)
            value = torch.tensor([float(len(caption))]) * (float("inf") if caption == self.bad != "" else 1.0)
            states = value[:, None, None].repeat(1, 5, 7).to(self.dtype)
            yield Embeds(value[:, None].repeat(1, 3).to(self.dtype), states, torch.ones(1, 5).bool())

    def close(self) -> None:
        self.closed = True


@dataclass
class Bench:
    """Everything a stage takes, with counters."""

    root: Path
    config: DatasetConfig
    store: Store
    decoder: FakeDecoder
    progress: list[tuple[int, int, str]]
    encoders: list[Any]
    work: list[tuple[int, int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def sample(self, name: str, data: bytes) -> Sample:
        path = self.root / name
        path.write_bytes(data)
        return Sample(
            index=0, path=path, name=name, caption_path=None, caption="", width=64, height=80, repeats=1,
            regularization=False,
        )  # fmt: skip

    def views(self, count: int) -> list[View]:
        return [View(self.sample(f"{n:02d}.png", bytes([n, 1])), PLACE) for n in range(count)]

    def latents(
        self, views: list[View], stop: Callable[[], bool] = lambda: False, print_: str = "ae", **encoder: Any
    ) -> dict[View, str]:
        self.progress.clear()

        def load() -> Any:
            self.encoders.append(FakeAutoencoder(**encoder))
            return self.encoders[-1]

        decoder: Any = self.decoder
        return cache_latents(
            views, self.config, self.store, decoder, load, print_, self._told, stop, self.notes.append
        )

    def text(
        self, captions: list[str], stop: Callable[[], bool] = lambda: False, print_: str = "te", **encoder: Any
    ) -> dict[str, str]:
        self.progress.clear()

        def load() -> Any:
            self.encoders.append(FakeTextEncoder(**encoder))
            return self.encoders[-1]

        return cache_text(captions, self.store, load, print_, self._told, stop, self.notes.append)

    def _told(self, done: int, total: int, name: str) -> None:
        (self.work if "%" in name else self.progress).append((done, total, name))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "pictures").mkdir()
    config = DatasetConfig(folders=(FolderConfig(path=tmp_path),))
    return Bench(tmp_path / "pictures", config, Store(tmp_path / "cache"), FakeDecoder(), [], [])


def _flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_latents_are_encoded_once(bench: Bench) -> None:
    views = bench.views(5)
    keys = bench.latents(views)
    assert list(keys) == views
    assert bench.encoders[0].batches == 1
    assert [done for done, _, _ in bench.progress] == [1, 2, 3, 4, 5]
    assert {total for _, total, _ in bench.progress} == {5}
    assert {name for _, _, name in bench.progress} == {f"{n:02d}.png" for n in range(5)}
    for view, key in keys.items():
        entry = bench.store.get(key)
        assert entry is not None
        assert {name: (tensor.shape, tensor.dtype) for name, tensor in entry.items()} == {
            name: (torch.Size([16, 8, 8]), torch.float32) for name in ("mean", "std")
        }
        level = sum(view.sample.path.read_bytes())
        assert float(entry["mean"].mean()) == pytest.approx(level / 127.5 - 1, abs=1e-6)
    again = bench.latents(views)
    assert again == keys
    assert len(bench.encoders) == 1, "nothing was missing, yet an encoder was loaded"
    assert len(bench.progress) == 5
    assert len(bench.decoder.calls) == 5
    assert all(name.startswith("decode") for name in bench.decoder.threads)


def test_a_new_process_encodes_nothing_either(bench: Bench) -> None:
    views = bench.views(3)
    keys = bench.latents(views)
    bench.store = Store(bench.store.root)
    assert bench.latents(views) == keys
    assert len(bench.encoders) == 1


def test_everything_that_matters_is_in_the_key(bench: Bench) -> None:
    view = bench.views(1)[0]
    base = latent_key(view, bench.config, "ae")
    sample, place = view.sample, view.placement
    others = [
        latent_key(view, bench.config, "other"),
        latent_key(replace(view, flip=True), bench.config, "ae"),
        latent_key(view, bench.config.model_copy(update={"background": "black"}), "ae"),
        latent_key(View(bench.sample("b.png", b"other"), PLACE), bench.config, "ae"),
    ]
    for name in ("bucket_w", "bucket_h", "resized_w", "resized_h", "left", "top"):
        moved = replace(place, **{name: getattr(place, name) + 1})
        others.append(latent_key(replace(view, placement=moved), bench.config, "ae"))
    assert len({base, *others}) == 11
    elsewhere = replace(
        sample,
        path=bench.sample("renamed.png", sample.path.read_bytes()).path,
        name="renamed.png",
        index=9,
        caption="other",
        repeats=3,
    )
    assert latent_key(replace(view, sample=elsewhere), bench.config, "ae") == base


def test_equal_pictures_are_encoded_once(bench: Bench) -> None:
    views = [View(bench.sample(name, b"same"), PLACE) for name in ("a.png", "b.png", "c.png")]
    keys = bench.latents(views)
    assert len(keys) == 3
    assert len(set(keys.values())) == 1
    assert bench.encoders[0].batches == 1
    assert bench.progress == [(1, 1, "a.png")]


def test_damaged_and_torn_latents_are_redone(bench: Bench) -> None:
    views = bench.views(4)
    keys = bench.latents(views)
    good = bench.store.get(keys[views[1]])
    _flip_last_bit(bench.store.path(keys[views[1]]))
    torn = bench.store.path(keys[views[2]])
    torn.write_bytes(torn.read_bytes()[:100])
    bench.store = Store(bench.store.root)
    assert bench.latents(views) == keys
    assert bench.encoders[-1].batches == 1
    assert sorted(bench.store.damaged) == sorted([keys[views[1]], keys[views[2]]])
    redone = bench.store.get(keys[views[1]])
    assert good is not None
    assert redone is not None
    assert torch.equal(redone["mean"], good["mean"])


def test_a_swapped_autoencoder_redoes_all(bench: Bench) -> None:
    views = bench.views(3)
    first = bench.latents(views)
    second = bench.latents(views, print_="another")
    assert bench.encoders[1].batches == 1
    assert not set(first.values()) & set(second.values())


def test_the_autoencoder_leaves_the_gpu_and_is_dropped(bench: Bench) -> None:
    bench.latents(bench.views(2))
    assert bench.encoders[0].device == "cpu"
    gone = weakref.ref(bench.encoders.pop())
    gc.collect()
    assert gone() is None


def test_latents_that_are_not_finite_name_the_picture(bench: Bench) -> None:
    views = bench.views(3)
    bad = sum(views[1].sample.path.read_bytes()) / 127.5 - 1
    with pytest.raises(CacheError, match=r"01\.png"):
        bench.latents(views, bad=bad)
    assert not bench.store.has(latent_key(views[1], bench.config, "ae"))
    assert bench.encoders[0].device == "cpu"


def test_a_broken_picture_is_named_and_nothing_hangs(bench: Bench) -> None:
    views = [*bench.views(2), View(bench.sample("bad.png", b"broken"), PLACE)]
    with pytest.raises(DatasetError) as caught:
        bench.latents(views)
    assert "bad.png" in caught.value.detail
    assert bench.encoders[0].device == "cpu"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_a_picture_changed_since_the_scan_is_refused(bench: Bench) -> None:
    views = bench.views(2)

    def edit_meanwhile() -> bool:
        views[1].sample.path.write_bytes(b"edited meanwhile")
        return False

    with pytest.raises(DatasetError, match="changed") as caught:
        bench.latents(views, stop=edit_meanwhile)
    assert "01.png" in caught.value.detail
    assert bench.store.stats().entries == 0, "they would have been encoded together"


def test_a_stop_keeps_what_is_done(bench: Bench) -> None:
    views = bench.views(6)
    keys = bench.latents(views, stop=lambda: len(bench.progress) >= 2)
    assert len(keys) == 2
    assert bench.store.stats().entries == 2
    assert bench.encoders[0].device == "cpu"
    assert len(bench.latents(views)) == 6
    assert bench.encoders[1].batches == 1
    assert bench.latents(views, stop=lambda: True) == {}


def test_views_of_many_sizes_and_mirrored(bench: Bench) -> None:
    wide = Placement(bucket_w=128, bucket_h=64, resized_w=128, resized_h=64, left=0, top=0)
    sample = bench.sample("a.png", b"a")
    views = [View(sample, PLACE), View(sample, wide), View(sample, PLACE, flip=True)]
    keys = bench.latents(views)
    assert len(set(keys.values())) == 3
    entry = bench.store.get(keys[views[1]])
    assert entry is not None
    assert entry["mean"].shape == (16, 8, 16)
    assert {call[3] for call in bench.decoder.calls} == {False, True}


def test_hostile_names_are_shown_harmlessly(bench: Bench) -> None:
    bench.latents([View(replace(bench.sample("a.png", b"a"), name="\x1b]0;evil\x07.png"), PLACE)])
    assert "\x1b" not in bench.progress[0][2]
    bench.text(["\x1b[2Jcaption\u202e"])
    assert "\x1b" not in bench.progress[0][2]
    assert "\u202e" not in bench.progress[0][2]


def test_gpu_memory_that_does_not_suffice(bench: Bench) -> None:
    with pytest.raises(CacheError, match="memory") as caught:
        bench.latents(bench.views(2), oom=True)
    assert "2 GiB" in caught.value.detail
    assert bench.encoders[0].device == "cpu"


def test_one_edited_caption_is_one_embedding(bench: Bench) -> None:
    captions = [f"a picture of {n}" for n in range(6)]
    keys = bench.text(captions)
    assert bench.encoders[0].seen == captions
    assert bench.encoders[0].calls == 1, "one call reads the weights once"
    assert bench.encoders[0].closed
    assert bench.notes == ["slow memory"]
    edited = [*captions[:3], "a picture of three.", *captions[4:]]
    after = bench.text(edited)
    assert bench.encoders[1].seen == ["a picture of three."]
    assert {caption: after[caption] for caption in captions if caption in after} == {
        caption: key for caption, key in keys.items() if caption in after
    }
    bench.text(edited)
    assert len(bench.encoders) == 2


@pytest.mark.parametrize(
    "other", ["A cat", "a cat ", " a cat", "a cat\n", "a  cat", "a cat\u200b", "a ca\u0074\u0301"]
)
def test_captions_count_to_the_last_sign(other: str) -> None:
    assert text_key("a cat", "te") != text_key(other, "te")


def test_equal_captions_are_encoded_once_and_the_empty_one_too(bench: Bench) -> None:
    keys = bench.text(["a", "", "a", "b", ""])
    assert bench.encoders[0].seen == ["a", "", "b"]
    assert set(keys) == {"a", "", "b"}
    assert bench.progress[-1][:2] == (3, 3)


def test_a_swapped_text_encoder_redoes_all(bench: Bench) -> None:
    bench.text(["a", "b"])
    bench.text(["a", "b"], print_="other tokenizer")
    assert bench.encoders[1].seen == ["a", "b"]


@pytest.mark.parametrize(
    ("computed", "stored"),
    [(torch.bfloat16, torch.bfloat16), (torch.float32, torch.float32), (torch.float16, torch.float32)],
)
def test_precision_of_stored_states(bench: Bench, computed: torch.dtype, stored: torch.dtype) -> None:
    entry = bench.store.get(bench.text(["abc"], dtype=computed)["abc"])
    assert entry is not None
    assert entry["states"].dtype == stored
    assert entry["states"].shape == (5, 7)
    assert entry["pooled"].dtype == torch.float32
    assert entry["pooled"].shape == (3,)
    assert entry["mask"].dtype == torch.bool
    assert entry["mask"].shape == (5,)
    assert float(entry["states"].float().mean()) == 3.0


def test_embeddings_that_are_not_finite_name_the_caption(bench: Bench) -> None:
    with pytest.raises(CacheError, match="too hot"):
        bench.text(["fine", "too hot"], bad="too hot")
    assert bench.encoders[0].closed
    assert bench.store.stats().entries == 1


def test_a_damaged_embedding_is_redone(bench: Bench) -> None:
    keys = bench.text(["a", "b", "c"])
    _flip_last_bit(bench.store.path(keys["b"]))
    assert bench.text(["a", "b", "c"]) == keys
    assert bench.encoders[1].seen == ["b"]
    assert bench.store.damaged == [keys["b"]]


def test_a_stop_among_captions(bench: Bench) -> None:
    assert len(bench.text(["a", "b", "c"], stop=lambda: len(bench.progress) >= 1)) == 1
    assert bench.encoders[0].closed
    assert bench.text(["a", "b", "c"], stop=lambda: True) == {}


def test_a_stop_in_the_middle_of_the_encoder_s_work(bench: Bench) -> None:
    bench.text(["a"])
    assert [done for done, _, _ in bench.work] == [0, 0]
    assert "50 % of the encoder's work on 1 captions" in bench.work[1][2]
    bench.work.clear()
    assert bench.text(["a", "b", "c"], stop=lambda: len(bench.work) >= 2) == {"a": text_key("a", "te")}
    assert bench.encoders[1].seen == []
    assert bench.encoders[1].closed


def test_a_full_disk_while_caching_loses_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.text(["a"])
    bench.latents(bench.views(1))

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskError, match="full"):
        bench.text(["a", "b"])
    with pytest.raises(DiskError, match="full"):
        bench.latents(bench.views(3))
    assert bench.encoders[-2].closed
    assert bench.encoders[-1].device == "cpu"
    monkeypatch.undo()
    assert bench.store.stats().entries == 2
    assert len(bench.latents(bench.views(3))) == 3
    assert bench.encoders[-1].batches == 1
    assert not [path for path in bench.store.root.rglob("*.part")]
