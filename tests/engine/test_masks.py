"""Masked loss: the mask lies where its picture lies, weighs as documented, and changes nothing where all is white."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pictures import REFUSED, encoded, gradient, picture_file, turned
from PIL import Image
from pocket import finish, pictures, pocket_config, submit_after, told
from safetensors.torch import load_file

from engine.batches import Item, MicroBatch
from engine.cache.latents import View
from engine.cache.masks import cache_masks, mask_key
from engine.cache.store import Store
from engine.commands import StopNow
from engine.config import BucketConfig, DatasetConfig, FolderConfig, MaskConfig, ObjectiveConfig
from engine.dataset.buckets import place
from engine.dataset.check import check_dataset
from engine.dataset.decoder import Decoder
from engine.dataset.scan import Sample, collect, scan_dataset
from engine.dataset.sidecar import Sidecar
from engine.errors import DatasetError
from engine.events import EventLog, Measured, RunFailed, StepDone
from engine.models.family import TextEmbeds
from engine.run import Run, open_run
from engine.training.entries import Entries
from engine.training.flow import LEAST_AREA, mask_weights, sample_losses
from engine.training.measured_pictures import split
from engine.training.objective import Inputs

BUCKETS = BucketConfig(min_side=32, max_side=128, step=16)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as shared:
        yield shared


def config(folder: Path, source: str = "folder") -> DatasetConfig:
    masks = MaskConfig(source=source)
    return DatasetConfig(folders=(FolderConfig(path=folder),), resolution=64, buckets=BUCKETS, masks=masks)


def mask_file(path: Path, values: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(Image.fromarray(values.astype(np.uint8)), "PNG", **options))


def left_half(width: int = 64, height: int = 64) -> np.ndarray:
    return np.where(np.arange(width) < width // 2, 255, 0)[None].repeat(height, 0)


def cached(sample: Sample, store: Store, decoder: Decoder, flip: bool = False) -> np.ndarray:
    view = View(sample, place(sample.width, sample.height, 64, BUCKETS), flip)
    keys = cache_masks([view], store, decoder, lambda *_: None, lambda: False)
    entry = store.get(keys[view])
    assert entry is not None
    return entry["mask"].numpy()


def test_masks_are_found_by_name_and_are_no_pictures(decoder: Decoder, tmp_path: Path) -> None:
    picture_file(tmp_path, "a.jpg")
    picture_file(tmp_path / "sub", "b.png")
    mask_file(tmp_path / "masks" / "sub" / "b.png", left_half())
    scan = scan_dataset(config(tmp_path), decoder)
    assert [(s.name, s.mask) for s in scan.samples] == [
        ("a.jpg", None), ("sub/b.png", tmp_path / "masks" / "sub" / "b.png"),
    ]  # fmt: skip
    (warning,) = scan.problems
    assert (warning.code, warning.severity) == ("no-mask", "warning") and "1 of 2 pictures" in warning.message
    (tmp_path / "masks" / "sub" / "b.png").unlink()
    assert [p.code for p in collect(config(tmp_path), decoder).errors] == ["no-mask"]
    assert len(collect(config(tmp_path, "off"), decoder).samples) == 2


def test_a_mask_lies_where_its_picture_does(decoder: Decoder, tmp_path: Path) -> None:
    """At another size; cropped and mirrored with the picture; by area."""
    picture_file(tmp_path, "a.png", width=128, height=64)
    mask_file(tmp_path / "masks" / "a.png", left_half(256, 128))
    store = Store(tmp_path / "cache")
    (sample,) = scan_dataset(config(tmp_path), decoder).samples
    row = cached(sample, store, decoder)[0]
    assert list(row[:5]) == [255] * 5 and list(row[5:]) == [0] * 5  # 80 pixels wide, cropped at the centre
    Sidecar().with_notes("a.png", crop=(48, 0, 64, 64)).save(tmp_path)
    (sample,) = scan_dataset(config(tmp_path), decoder).samples
    assert list(cached(sample, store, decoder)[3]) == [255, 255, 0, 0, 0, 0, 0, 0]
    assert list(cached(sample, store, decoder, flip=True)[3]) == [0, 0, 0, 0, 0, 0, 255, 255]
    Sidecar().with_notes("a.png", crop=(52, 0, 64, 64)).save(tmp_path)
    (sample,) = scan_dataset(config(tmp_path), decoder).samples
    assert list(cached(sample, store, decoder)[3][:3]) == [255, 128, 0]


def test_an_alpha_channel_is_a_mask_turned_with_its_picture(decoder: Decoder, tmp_path: Path) -> None:
    rgba = gradient(64, 64).convert("RGBA")
    rgba.putalpha(Image.fromarray(left_half().astype(np.uint8)))
    (tmp_path / "a.png").write_bytes(encoded(rgba, "PNG", exif=turned(6)))
    (tmp_path / "a.txt").write_text("x")
    picture_file(tmp_path, "b.png", width=64, height=64)
    first, second = scan_dataset(config(tmp_path, "alpha"), decoder).samples
    store = Store(tmp_path / "cache")
    mask = cached(first, store, decoder)
    assert mask[:4].min() == 255 and mask[4:].max() == 0  # the left half is the upper one after the turn
    assert cached(second, store, decoder).min() == 255


def test_masks_of_another_shape_are_refused_other_ones_are_other_entries(decoder: Decoder, tmp_path: Path) -> None:
    picture_file(tmp_path, "a.png", width=64, height=64)
    mask_file(tmp_path / "masks" / "a.png", left_half(64, 48))
    (sample,) = scan_dataset(config(tmp_path), decoder).samples
    with pytest.raises(DatasetError, match="another shape") as caught:
        cached(sample, Store(tmp_path / "cache"), decoder)
    assert "masks/a.png" in caught.value.detail and "64 x 48" in caught.value.detail
    report = check_dataset(config(tmp_path))
    assert [(p["code"], p["path"].endswith("masks/a.png")) for p in report["problems"]] == [("mask", True)]
    view = View(sample, place(64, 64, 64, BUCKETS))
    before = mask_key(view)
    mask_file(tmp_path / "masks" / "a.png", left_half(64, 64))
    assert mask_key(view) != before


def test_hostile_masks_are_refused_by_name(decoder: Decoder, tmp_path: Path) -> None:
    for name, made in REFUSED.items():
        path = tmp_path / name
        path.write_bytes(made())
        with pytest.raises(DatasetError):
            decoder.mask(path, place(64, 64, 64, BUCKETS), (64, 64), None, False, False)


def test_pictures_that_are_only_measured_need_no_masks(decoder: Decoder, tmp_path: Path) -> None:
    picture_file(tmp_path / "held", "a.png", width=64, height=64)
    validation = {"folder": tmp_path / "held"}
    run = pocket_config(tmp_path, dataset={"masks": {"source": "folder"}}, validation=validation)
    (held,) = split((), run, decoder, EventLog())[1]
    assert held.mask is None
    mask_file(tmp_path / "held" / "masks" / "a.png", left_half())
    (held,) = split((), run, decoder, EventLog())[1]
    assert held.mask == tmp_path / "held" / "masks" / "a.png"


def test_weights_keep_the_scale() -> None:
    half = torch.from_numpy(left_half(8, 8).astype(np.uint8))
    weights = mask_weights(half, 0.1)
    assert weights.shape == (1, 8, 8) and weights.mean() == pytest.approx(1)
    assert weights[0, 0, 0] / weights[0, 0, 7] == pytest.approx(10)
    for outside in (0.0, 0.1, 0.3, 1.0):
        assert torch.equal(mask_weights(torch.full((24, 16), 255, dtype=torch.uint8), outside), torch.ones(1, 24, 16))
    dot = torch.zeros(32, 32, dtype=torch.uint8)
    dot[3, 3] = 255
    assert mask_weights(dot, 0.0).max() == 1 / LEAST_AREA
    assert mask_weights(torch.zeros(4, 4, dtype=torch.uint8), 0.0).abs().max() == 0


@pytest.mark.parametrize("loss", ["l2", "huber", "smooth_l1"])
def test_what_is_masked_out_has_no_gradient_and_white_changes_no_bit(loss: str) -> None:
    generator = torch.Generator().manual_seed(1)
    pred, target = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    pred.requires_grad_()
    settings, sigmas = ObjectiveConfig(loss=loss), torch.tensor([0.3, 0.8])
    plain = sample_losses(pred, target, sigmas, settings).mean()
    (plain_gradient,) = torch.autograd.grad(plain, pred)
    white = sample_losses(pred, target, sigmas, settings, torch.ones(2, 1, 8, 8)).mean()
    assert torch.equal(white, plain) and torch.equal(torch.autograd.grad(white, pred)[0], plain_gradient)
    half = mask_weights(torch.from_numpy(left_half(8, 8).astype(np.uint8)), 0.0)
    masked = sample_losses(pred, target, sigmas, settings, torch.stack([half, torch.ones(1, 8, 8)])).mean()
    (gradient_,) = torch.autograd.grad(masked, pred)
    assert gradient_[0, :, :, 4:].abs().max() == 0 and torch.equal(gradient_[1], plain_gradient[1])
    assert torch.equal(gradient_[0, :, :, :4], 2 * plain_gradient[0, :, :, :4])


def test_a_batch_of_masked_and_unmasked_pictures(decoder: Decoder, tmp_path: Path) -> None:
    for name in "ab":
        picture_file(tmp_path, f"{name}.png", width=64, height=64)
    mask_file(tmp_path / "masks" / "b.png", left_half())
    store, placement = Store(tmp_path / "cache"), place(64, 64, 64, BUCKETS)
    views = [View(sample, placement) for sample in scan_dataset(config(tmp_path), decoder).samples]
    masks = cache_masks(views, store, decoder, lambda *_: None, lambda: False)
    entries = Entries(store, {}, {}, 1, masks, outside=0.25)
    a, b = (Item(slot, view, "", 1.0) for slot, view in enumerate(views))
    assert entries.batch_masks(MicroBatch((a, a))) is None
    mixed = entries.batch_masks(MicroBatch((a, b)))
    assert mixed is not None and mixed.shape == (2, 1, 8, 8)
    assert torch.equal(mixed[0], torch.ones(1, 8, 8))
    assert mixed[1, 0, 0].tolist() == pytest.approx([1.6] * 4 + [0.4] * 4)


def test_a_part_of_a_micro_batch_takes_its_own_masks() -> None:
    text = TextEmbeds(torch.zeros(3, 2), torch.zeros(3, 4, 2), torch.ones(3, 4))
    latents, mask = torch.zeros(3, 4, 2, 2), torch.rand(3, 1, 2, 2)
    whole = Inputs(latents, latents, torch.rand(3), text, torch.ones(3), loss_mask=mask)
    parts = [part.loss_mask for part in whole.parts(2)]
    assert [len(part) for part in parts if part is not None] == [2, 1]
    assert torch.equal(torch.cat([part for part in parts if part is not None]), mask)


def run_of(home: Path, **changes: object) -> SimpleNamespace:
    """A short run's weights, losses and measurements."""
    run = finish(Run(pocket_config(home, **changes)))
    assert run.exit_reason == "finished", told(run, RunFailed)
    return result(run)


def result(run: Run) -> SimpleNamespace:
    (lora,) = run.folder.root.glob("test.safetensors")
    losses = {event.step: event.loss for event in told(run, StepDone)}
    return SimpleNamespace(weights=load_file(lora), losses=losses, measured=told(run, Measured), run=run)


def same(one: SimpleNamespace, other: SimpleNamespace) -> bool:
    both = {step: one.losses[step] == other.losses[step] for step in one.losses.keys() & other.losses.keys()}
    weights = one.weights.keys() == other.weights.keys()
    return bool(both) and all(both.values()) and weights and all(
        torch.equal(one.weights[name], other.weights[name]) for name in one.weights
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of which three have a mask that hides the right half."""
    home = tmp_path_factory.mktemp("masks")
    for number, picture in enumerate(sorted(pictures(home / "data", 5).glob("*.png"))):
        with Image.open(picture) as opened:
            width, height = opened.size
        mask_file(home / "white" / picture.name, np.full((height, width), 255))
        if number in (1, 2, 3):
            mask_file(home / "half" / picture.name, left_half(width, height))
    return home


MEASURED = {"validation": {"held_out": 1, "every_epochs": 2}}


def masked(home: Path, folder: str, runs: str, **changes: object) -> dict[str, object]:
    dataset = {"masks": {"source": "folder", "folder": str(home / folder), "outside": 0.0}}
    return {"runs_dir": home / runs, "dataset": dataset, **MEASURED, **changes}


def test_white_masks_train_bit_by_bit_as_none(home: Path) -> None:
    plain = run_of(home, runs_dir=home / "plain", **MEASURED)
    white = run_of(home, **masked(home, "white", "runs-white"))
    assert same(plain, white)
    assert [m.held_out for m in plain.measured] == [m.held_out for m in white.measured] != []


def test_a_run_with_masks_resumes_exactly(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = {"training": {"epochs": 2, "batch_size": 2, "accumulation": 1}}
    whole = run_of(home, **masked(home, "half", "runs-whole", **batches))
    plain = run_of(home, runs_dir=home / "runs-plain", **batches, **MEASURED)
    assert not same(plain, whole) and plain.measured[0].train != whole.measured[0].train
    submit_after(monkeypatch, {2: [StopNow()]})
    stopped = finish(Run(pocket_config(home, **masked(home, "half", "runs-stopped", **batches))))
    assert stopped.exit_reason == "stopped"
    resumed = result(finish(open_run(stopped.folder.root)))
    assert same(whole, resumed) and whole.measured[-1].train == resumed.measured[-1].train
