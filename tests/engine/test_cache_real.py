"""The caching stages with the real decoder and the pocket model's real encoders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import engine.models.pocket
from engine.cache.latents import View, cache_latents
from engine.cache.store import Store
from engine.cache.text import cache_text
from engine.config import BucketConfig, DatasetConfig, FolderConfig, ModelConfig
from engine.dataset.buckets import place
from engine.dataset.decoder import Decoder
from engine.dataset.decoder_pool import DecoderPool
from engine.dataset.scan import scan_dataset
from engine.errors import DatasetError
from engine.models.autoencoder import Autoencoder, load_autoencoder
from engine.models.detect import expect
from engine.models.family import Family, TextEmbeds, family_of
from engine.models.header import encoder_fingerprint
from engine.training.png import picture_pixels
from engine.training.sampling import PictureRequest, draw_latents

POCKET = Path(engine.models.pocket.__file__).parent
FILES = POCKET / "files"
MODEL = ModelConfig(
    transformer=FILES / "flux-pocket.safetensors",
    autoencoder=FILES / "ae-pocket.safetensors",
    clip_l=FILES / "clip-pocket.safetensors",
    t5=FILES / "t5-pocket.safetensors",
    download_tokenizers=False,
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def decoder() -> Iterator[DecoderPool]:
    with DecoderPool(workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def family() -> Family:
    return family_of(expect(MODEL.transformer, "transformer"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def dataset(folder: Path) -> DatasetConfig:
    return DatasetConfig(
        folders=(FolderConfig(path=folder),),
        resolution=64,
        buckets=BucketConfig(min_side=64, max_side=128, step=16),
        allow_missing_captions=True,
    )


def views_of(config: DatasetConfig) -> list[View]:
    with Decoder() as scanner:
        samples = scan_dataset(config, scanner).samples
    return [View(s, place(s.width, s.height, config.resolution, config.buckets)) for s in samples]


def autoencoder() -> Autoencoder:
    return load_autoencoder(MODEL.autoencoder, CPU, torch.float32)


def fill(
    views: list[View], config: DatasetConfig, store: Store, decoder: DecoderPool, **given: Any
) -> dict[View, str]:
    fingerprint = encoder_fingerprint(MODEL.autoencoder, torch.float32)
    stop, told = given.get("stop", lambda: False), given.get("told", lambda *_: None)
    return cache_latents(views, config, store, decoder, autoencoder, fingerprint, told, stop)


def test_cached_latents_are_the_pictures(store: Store, decoder: DecoderPool) -> None:
    config = dataset(POCKET / "demo" / "train")
    views = views_of(config)[:4]
    keys = fill(views, config, store, decoder)
    net = autoencoder()
    for view in views:
        entry = store.get(keys[view])
        assert entry is not None
        assert entry["mean"].shape == entry["std"].shape == (16, 8, 8)
        back = picture_pixels(net.decode(entry["mean"][None])).astype(float)
        with Image.open(view.sample.path) as image:
            original = np.asarray(image.convert("RGB").resize((64, 64)), dtype=float)
        assert np.abs(back - original).mean() < 16, view.sample.name


def test_a_killed_stage_goes_on_with_the_same_bits(tmp_path: Path, decoder: DecoderPool) -> None:
    config = dataset(POCKET / "demo" / "train")
    views = views_of(config)[:5]
    whole, halves = Store(tmp_path / "whole"), Store(tmp_path / "halves")
    keys = fill(views, config, whole, decoder)
    told: list[str] = []
    first = fill(
        views, config, halves, decoder, told=lambda *about: told.append(about[2]), stop=lambda: len(told) >= 2
    )
    assert len(first) == 2
    assert fill(views[::-1], config, halves, decoder) == keys
    for key in keys.values():
        one, other = whole.get(key), halves.get(key)
        assert one is not None
        assert other is not None
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_pictures_as_people_have_them(tmp_path: Path, store: Store, decoder: DecoderPool) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "wide.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(folder / "turned.jpg", exif=exif)
    alpha = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    alpha.save(folder / "clear.png")
    Image.fromarray(noise).convert("L").save(folder / "grey.png")
    config = dataset(folder).model_copy(update={"resolution": 96})
    views = views_of(config)
    keys = fill(views, config, store, decoder)
    shapes = {view.sample.name: tuple(store.get(key)["mean"].shape) for view, key in keys.items()}  # type: ignore[index]
    assert shapes["wide.jpg"][2] > shapes["wide.jpg"][1]
    assert shapes["turned.jpg"][1] > shapes["turned.jpg"][2]
    black = config.model_copy(update={"background": "black"})
    other = fill(views, black, store, decoder)
    clear = next(view for view in views if view.sample.name == "clear.png")
    on_white, on_black = store.get(keys[clear]), store.get(other[clear])
    assert on_white is not None
    assert on_black is not None
    assert float((on_white["mean"] - on_black["mean"]).abs().max()) > 0.1


def test_a_truncated_picture_is_named(tmp_path: Path, store: Store, decoder: DecoderPool) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(np.zeros((96, 96, 3), np.uint8)).save(folder / "good.png")
    Image.effect_noise((96, 96), 90).convert("RGB").save(folder / "torn.jpg", quality=95)
    data = (folder / "torn.jpg").read_bytes()
    (folder / "torn.jpg").write_bytes(data[: len(data) // 2])
    config = dataset(folder)
    with pytest.raises(DatasetError, match=r"(?s).*torn\.jpg"):
        fill(views_of(config), config, store, decoder)


def embed(family: Family, captions: list[str], store: Store, model: ModelConfig = MODEL) -> dict[str, str]:
    fingerprint = family.text_fingerprint(model, torch.float32)

    def load() -> Any:
        return family.load_text_encoder(model, CPU, torch.float32)

    return cache_text(captions, store, load, fingerprint, lambda *_: None, lambda: False)


def test_captions_through_the_real_encoders(family: Family, store: Store) -> None:
    keys = embed(family, ["a red circle", "a blue square", ""], store)
    entries = {caption: store.get(key) for caption, key in keys.items()}
    length = family.text_length("dev", MODEL)
    for entry in entries.values():
        assert entry is not None
        assert entry["states"].shape[0] == entry["mask"].shape[0] == length
    red, blue = entries["a red circle"], entries["a blue square"]
    assert red is not None
    assert blue is not None
    assert not torch.equal(red["states"], blue["states"])
    assert not torch.equal(red["pooled"], blue["pooled"])


def test_length_and_mask_settings_are_in_the_fingerprint(family: Family, store: Store) -> None:
    base = embed(family, ["a red circle"], store)
    masked = embed(family, ["a red circle"], store, MODEL.model_copy(update={"t5_mask": True}))
    longer = embed(family, ["a red circle"], store, MODEL.model_copy(update={"t5_length": 40}))
    assert len({base["a red circle"], masked["a red circle"], longer["a red circle"]}) == 3


def test_a_picture_from_the_cache(family: Family, store: Store) -> None:
    entry = store.get(embed(family, ["a red circle in the center on a white background"], store).popitem()[1])
    assert entry is not None
    text = TextEmbeds(entry["pooled"][None], entry["states"][None], entry["mask"][None])
    transformer = family.load_transformer(MODEL, CPU, torch.float32)
    request = PictureRequest("", width=64, height=64, steps=8, seed=1)
    state = torch.get_rng_state()
    latents = draw_latents(family, transformer, text, None, request, "dev", CPU)
    assert latents is not None
    assert latents.shape == (1, 16, 8, 8)
    assert bool(latents.isfinite().all())
    again = draw_latents(family, transformer, text, None, request, "dev", CPU)
    assert again is not None
    assert torch.equal(latents, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert picture_pixels(autoencoder().decode(latents)).shape == (64, 64, 3)
