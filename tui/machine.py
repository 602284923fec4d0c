"""What a run would be trained on, in a few words for the status line. Asks the driver: not for the drawing thread."""

from __future__ import annotations

from engine.text import safe_text

NO_GPU = "no GPU"

MAKERS = ("NVIDIA ", "GeForce ", "AMD ")
"""Words of a card's name that say nothing to who owns it."""


def machine_in_words() -> str:
    """The GPUs that may be used, "2 x RTX 4090 24 GB"; :data:`NO_GPU` without any."""
    from engine.hardware.gpu import read_gpus, visible_gpus

    gpus = visible_gpus(read_gpus())
    if not gpus:
        return NO_GPU
    name = gpus[0].name
    for maker in MAKERS:
        name = name.replace(maker, "")
    memory = f" {gpus[0].total_gb:.0f} GB" if gpus[0].total_gb else ""
    count = f"{len(gpus)} x " if len(gpus) > 1 else ""
    return safe_text(f"{count}{name}{memory}", 40)
