"""A run's folder made by hand, with pictures, measurements and opinions: what reports are tested on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from engine.config import RunConfig
from engine.config_file import save_config
from engine.events import (
    CheckpointSaved,
    EpochDone,
    Event,
    EventLog,
    Log,
    Measured,
    RunDone,
    RunStarted,
    SampleSaved,
    StateChanged,
    StepDone,
)
from engine.files import RunFolder
from tui.judged import Judged, write_judged

PROMPTS = ("zorple, standing in tall grass", "a zorple on the moon", "a red chair")
KINDS = ("caption", "scene", "no trigger")
STEPS = 4


@dataclass(frozen=True)
class Shape:
    """What a made run is like."""

    epochs: int = 12
    every: int = 3
    prompts: Sequence[str] = PROMPTS
    side: int = 64
    strengths: Sequence[float] = ()
    measured: bool = True
    bottom: int = 6
    pictures: int = 6


PLAIN = Shape()


def picture(side: int, seed: int) -> bytes:
    """A picture with something in it, as PNG."""
    image = Image.new("RGB", (side, side), (40 + seed * 37 % 160, 60 + seed * 53 % 160, 80 + seed * 71 % 160))
    draw = ImageDraw.Draw(image)
    draw.ellipse((side // 6, side // 6, side * 2 // 3, side * 2 // 3), fill=(seed * 91 % 255, 200, 120))
    draw.text((2, 2), str(seed), fill="white")
    packed = io.BytesIO()
    image.save(packed, "PNG")
    return packed.getvalue()


def config_of(folder: Path, data: Path, **changes: object) -> RunConfig:
    """A configuration whose files lie where nothing is."""
    table = {
        "name": folder.name,
        "runs_dir": folder.parent,
        "model": {key: f"/models/{key}.safetensors" for key in ("transformer", "autoencoder", "clip_l", "t5")},
        "dataset": {"folders": [{"path": data}], "resolution": 64,
                    "buckets": {"min_side": 32, "max_side": 128, "step": 16},
                    "captions": {"trigger_word": "zorple"}},
        "lora": {"rank": 8},
    }  # fmt: skip
    return RunConfig.model_validate(table | changes)


def dataset_in(folder: Path, shape: Shape = PLAIN) -> Path:
    """Pictures with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(shape.pictures):
        (folder / f"own{number}.png").write_bytes(picture(shape.side, 100 + number))
        caption = "standing in tall grass" if number == 4 else f"a zorple, number {number}, outdoors"
        (folder / f"own{number}.txt").write_text(caption)
    return folder


def events_of(root: Path, shape: Shape = PLAIN) -> list[Event]:
    """What such a run tells."""
    told: list[Event] = [
        RunStarted(root.name, str(root), "flux1", "dev", shape.epochs, STEPS * shape.epochs, shape.pictures),
        StateChanged("training"),
    ]
    for epoch in range(shape.epochs + 1):
        if epoch:
            told += [
                StepDone(STEPS * (epoch - 1) + number, epoch, 1 / epoch, 1e-4, 1.0, 0.1, 0.0, 0.1, 0.0)
                for number in range(1, STEPS + 1)
            ]
            told.append(EpochDone(epoch, STEPS * epoch, 1 / epoch))
        if shape.measured:
            told.append(measured(epoch, shape.bottom))
        if epoch % shape.every == 0:
            told += saved(root, epoch, shape)
    return [*told, Log("warning", "the disk was slow: /home/somebody/work/x.bin"),
            RunDone("finished", STEPS * shape.epochs, shape.epochs, "", 61.0)]  # fmt: skip


def measured(epoch: int, bottom: int) -> Measured:
    """A loss on held-out pictures with a bottom."""
    loss = 1.0 + 0.01 * (epoch - bottom) ** 2
    return Measured(
        STEPS * epoch, epoch, held_out=(loss, loss * 1.002), held_out_bands=(loss, loss * 0.9, loss * 0.8),
        held_out_pictures=(loss,) * 8, train=(2.0 - 0.05 * epoch,), drift=0.01 * epoch,
        update=(("img_attn", 0.5 * epoch), ("single", 0.3 * epoch)), seconds=1.0,
    )  # fmt: skip


def saved(root: Path, epoch: int, shape: Shape) -> list[Event]:
    """An epoch's LoRA file and pictures, which are written too."""
    told: list[Event] = []
    if epoch:
        path = root / f"{root.name}-e{epoch:04d}.safetensors"
        path.write_bytes(b"lora")
        told.append(CheckpointSaved(str(path), STEPS * epoch, epoch, "epoch", 4))
    for index, prompt in enumerate(shape.prompts):
        for strength in (1.0, *(shape.strengths if epoch else ())):
            name = f"e{epoch}-{index}-{strength:g}.png"
            (root / "samples" / name).write_bytes(picture(shape.side, 10 * epoch + index))
            kind = KINDS[index % len(KINDS)]
            told.append(
                SampleSaved(f"/elsewhere/{name}", STEPS * epoch, epoch, index, prompt, 7 + index, kind, strength)
            )
    return told


def made_run(
    runs: Path, name: str = "owl", shape: Shape = PLAIN, judged: Judged | None = None, **changes: object
) -> Path:
    """A finished run's folder, with a dataset beside ``runs``."""
    root = runs / name
    (root / "samples").mkdir(parents=True)
    data = runs.parent / "data"
    if not data.exists():
        dataset_in(data, shape)
    save_config(config_of(root, data, **changes), RunFolder(root).config)
    log = EventLog(RunFolder(root).events, clock=iter(range(1_700_000_000, 1_800_000_000)).__next__)
    for event in events_of(root, shape):
        log.append(event)
    log.close()
    if judged is not None:
        write_judged(root, judged)
    return root
