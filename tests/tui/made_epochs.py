"""A run with epochs of every kind, written by code: events, pictures, LoRA files, configuration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fake_run import write_picture
from tiny_pictures import add

from engine.config import RunConfig
from engine.config_file import save_config
from engine.events import (
    CheckpointSaved,
    EpochDone,
    EventLog,
    Measured,
    RunDone,
    RunStarted,
    SampleSaved,
    StateChanged,
)
from engine.files import RunFolder

PROMPTS = (
    ("a zorple on a meadow", "caption"),
    ("a zorple reading a newspaper", "scene"),
    ("a red circle at the left", "no trigger"),
)
PER_EPOCH = 10


def lora_file(path: Path, names: Sequence[str] = ("lora_unet_x.lora_down.weight",)) -> Path:
    """A small file that is well-formed."""
    table = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * at, 4 * at + 4]} for at, name in enumerate(names)
    }
    header = json.dumps(table).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4 * len(names)))
    return path


def config_of(folder: Path, name: str = "cat", trigger: str = "zorple") -> RunConfig:
    """A configuration whose dataset has three pictures with captions; its model files are nowhere."""
    data = folder / "data"
    for number, caption in enumerate(("a zorple on a meadow", "a zorple at night", "a house")):
        add(data, f"{number}.png", caption)
    files = {slot: folder / f"{slot}.safetensors" for slot in ("transformer", "autoencoder", "clip_l", "t5")}
    return RunConfig.model_validate(
        {
            "name": name,
            "model": files,
            "runs_dir": folder / "runs",
            "dataset": {"folders": [{"path": data}], "captions": {"trigger_word": trigger}},
        }
    )


def measured(epoch: int, bottom: int, noises: int = 2) -> Measured:
    """A loss with a bottom on held-out pictures, and one that only falls on the others."""
    held = 0.4 + 0.002 * (epoch - bottom) ** 2
    bands = (held * 1.2, held, held * 0.9)
    return Measured(
        PER_EPOCH * epoch, epoch,
        held_out=tuple(held + 0.002 * number for number in range(noises)),
        held_out_bands=bands,
        held_out_pictures=(held,) * 8,
        train=(0.42 - 0.008 * epoch,),
        train_bands=bands,
        drift=0.002 * epoch,
        update=(("img_attn", 0.1 * epoch), ("single", 0.2 * epoch)),
    )  # fmt: skip


def make_run(
    folder: Path,
    epochs: int = 12,
    bottom: int = 6,
    every: int = 2,
    prompts: Sequence[tuple[str, str]] = PROMPTS,
    measures: bool = True,
    strengths: Sequence[float] = (1.0,),
    ends: bool = True,
    name: str = "cat",
    pictures: bool = True,
) -> Path:
    """A run that saved and drew every so many epochs; its folder. Its first prompt is of the base model too."""
    config = config_of(folder, name)
    root = RunFolder(folder / "runs" / name)
    root.samples.mkdir(parents=True)
    save_config(config, root.config)
    log = EventLog(root.events, clock=lambda: 1_790_000_000.0)
    log.append(StateChanged("preparing"))
    log.append(RunStarted(name, str(root.root), "flux1", "dev", epochs, PER_EPOCH * epochs, 3))
    log.append(StateChanged("training"))
    for epoch in range(epochs + 1):
        if epoch:
            log.append(EpochDone(epoch, PER_EPOCH * epoch, 0.5))
        if measures:
            log.append(measured(epoch, bottom))
        if epoch % every:
            continue
        if epoch:
            path = lora_file(root.root / f"{name}-e{epoch:04d}.safetensors")
            log.append(CheckpointSaved(str(path), PER_EPOCH * epoch, epoch, "epoch", path.stat().st_size))
        for index, (prompt, kind) in enumerate(prompts):
            for strength in strengths:
                picture = f"{epoch}-{index}-{strength}.png"
                if pictures:
                    write_picture(root.samples / picture, index % 2, 1.0, side=16)
                log.append(
                    SampleSaved(picture, PER_EPOCH * epoch, epoch, index, prompt, 40 + index, kind, strength)
                )  # fmt: skip
    if ends:
        log.append(RunDone("finished", PER_EPOCH * epochs, epochs, "", 60.0))
    log.close()
    return root.root
