"""The machine that a run would have: the one that is there, one that a user describes, and which of several GPUs.

Reads through :mod:`engine.hardware`; no torch. What cannot be read or is unusual is said in the machine's remarks.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from engine.errors import ConfigError
from engine.hardware.cards import OLDEST, SAME_SIZE, Card, card_named, card_of, known_cards, other_sizes, typical_card
from engine.hardware.gpu import Gpu, probe_gpus, visible_gpus
from engine.hardware.host import free_disk_gb, on_one_disk, read_memory, usable_cores
from engine.hardware.others import other_graphics
from engine.text import safe_text
from profiles.schema import Machine

TAKEN_VRAM_GB = 0.5
"""What driver and a quiet desktop keep of a card that is only described."""

TAKEN_RAM_GB = 3.0
"""What the system keeps of host memory that is only described."""

BUSY_GB = 0.5
"""Memory of others on a card from which on it is worth saying."""

ROOM = 0.75
"""Share of the roomiest card's free memory that a faster card must have to be the better choice: what lacks then is
streamed, and that hides behind computing."""


@dataclass(frozen=True)
class GpuChoice:
    """One GPU of several, for who picks.

    Attributes:
        device: as ``training.device`` names it, empty where this process does not see it.
        usable: a run can be trained on it at all.
        best: the one to take unless there is a reason.
        why: a sentence: what speaks for it or against it.
    """

    gpu: Gpu
    card: Card
    device: str
    usable: bool
    best: bool
    why: str


def read_machine(cache_dir: Path, runs_dir: Path, gpu_uuid: str = "") -> Machine:
    """This machine now.

    Args:
        cache_dir: where caches go, ``runs_dir`` where runs go; neither need exist yet.
        gpu_uuid: the GPU to train on, its beginning suffices; empty takes the one that a run takes by itself.

    Raises:
        ConfigError: there is no GPU of that name.
    """
    gpus, reason = probe_gpus()
    gpu, remarks = _chosen(gpus, reason, gpu_uuid)
    memory, disks = read_memory(), [free_disk_gb(cache_dir), free_disk_gb(runs_dir)]
    if memory.limited:
        remarks.append(f"A container allows {memory.total:.1f} GB of the host's memory.")
    for folder, free in zip((cache_dir, runs_dir), disks, strict=True):
        if free is None:
            remarks.append(f"How much room there is at {safe_text(folder, 200)} cannot be read.")
    bitsandbytes = find_spec("bitsandbytes") is not None
    if not bitsandbytes:
        remarks.append("bitsandbytes is not installed: no nf4, no 8-bit optimizers.")
    return Machine(
        card=None if gpu is None else card_of(gpu),
        free_vram_gb=0.0 if gpu is None else free_for_a_run(gpu),
        ram_gb=memory.total,
        free_ram_gb=memory.free,
        cores=usable_cores(),
        cache_disk_gb=disks[0] or 0.0,
        runs_disk_gb=disks[1] or 0.0,
        one_disk=on_one_disk(cache_dir, runs_dir),
        bitsandbytes=bitsandbytes,
        remarks=tuple(remarks),
    )


def imagined_machine(
    vram_gb: float = 0.0,
    ram_gb: float = 0.0,
    gpu_name: str = "",
    cores: int = 8,
    disk_gb: float = 500.0,
    taken_gb: float = TAKEN_VRAM_GB,
    bitsandbytes: bool = True,
) -> Machine:
    """A machine as a user describes it; what is left out is taken to be usual, and the remarks say so.

    Args:
        vram_gb: the card's memory; 0 is the named card's own.
        ram_gb: host memory; 0 is twice the card's, 32 at least.
        gpu_name: a known card as people call it; empty takes one that is usual for ``vram_gb``.
        taken_gb: what others hold of the card's memory.

    Raises:
        ConfigError: the card is unknown, several are called that, or neither name nor memory is given.
    """
    card, remarks = _described(vram_gb, gpu_name)
    if not ram_gb:
        ram_gb = max(32.0, 2.0 * round(card.vram_gb))
        remarks.append(f"Host memory is not given: {ram_gb:.0f} GB are assumed.")
    return Machine(
        card=card,
        free_vram_gb=max(card.vram_gb - taken_gb, 0.0),
        ram_gb=ram_gb,
        free_ram_gb=max(ram_gb - min(TAKEN_RAM_GB, ram_gb / 4), 0.0),
        cores=cores,
        cache_disk_gb=disk_gb,
        runs_disk_gb=disk_gb,
        bitsandbytes=bitsandbytes,
        remarks=tuple(remarks),
    )


def gpu_choices(gpus: Sequence[Gpu] | None = None, visible: str | None = None) -> tuple[GpuChoice, ...]:
    """Every GPU of this machine with what speaks for and against it, the best marked.

    Args:
        gpus: as :func:`engine.hardware.gpu.read_gpus` gives them; None reads them.
        visible: stands for CUDA_VISIBLE_DEVICES.
    """
    found = probe_gpus()[0] if gpus is None else list(gpus)
    seen = visible_gpus(found, visible)
    cards = {gpu: card_of(gpu) for gpu in found}
    able = [gpu for gpu in found if gpu in seen and not hindrance(gpu)]
    most = max((free_for_a_run(gpu) for gpu in able), default=0.0)
    roomy = [gpu for gpu in able if free_for_a_run(gpu) >= ROOM * most]

    def merit(gpu: Gpu) -> tuple[float, float, float]:
        return cards[gpu].rates.wide, cards[gpu].link_gb_s, free_for_a_run(gpu)

    best = max(roomy, key=merit, default=None)
    choices = []
    for gpu in found:
        against = hindrance(gpu) if gpu in seen else _hidden(gpu)
        why = against or _sentence(gpu, cards[gpu], best, most, cards)
        device = f"cuda:{seen.index(gpu)}" if gpu in seen else ""
        choices.append(GpuChoice(gpu, cards[gpu], device, not against, gpu is best, why))
    return tuple(choices)


def hindrance(gpu: Gpu) -> str:
    """Why a GPU cannot train at all, in a sentence; empty where it can."""
    if gpu.compute_capability is not None and gpu.compute_capability < OLDEST:
        has, needs = _dotted(gpu.compute_capability), _dotted(OLDEST)
        return f"Too old: its compute capability is {has}, this program's torch needs {needs} (Turing) or newer."
    if gpu.mig and not gpu.slice:
        return "MIG mode is on but it has no slices: make one with nvidia-smi mig, or switch MIG off."
    return ""


def free_for_a_run(gpu: Gpu) -> float:
    """GiB of a GPU that a run of this process may take: what is free, and what the process holds already.

    Where the driver counts no memory of the card's own (unified memory), the host's free memory stands in.
    """
    if gpu.free_gb is None:
        return gpu.total_gb if gpu.total_gb is not None else read_memory().free
    return gpu.free_gb + (gpu.own_gb or 0.0)


def holders(gpu: Gpu) -> str:
    """Who holds memory of a GPU beside this process, in words: "python 12.3 GB, Xorg"; empty where nobody."""
    named = [
        safe_text(process.name or f"process {process.pid}", 40)
        + ("" if process.used_gb is None else f" {process.used_gb:.1f} GB")
        for process in sorted(gpu.processes, key=lambda each: -(each.used_gb or 0.0))
    ]
    return ", ".join(named[:4]) + (f" and {len(named) - 4} more" if len(named) > 4 else "")


def _chosen(gpus: list[Gpu], reason: str, uuid: str) -> tuple[Gpu | None, list[str]]:
    """The GPU to train on, or none, and what there is to say about it."""
    seen = visible_gpus(gpus)
    found = [gpu for gpu in seen if gpu.uuid.startswith(uuid)]
    if uuid and not found:
        there = ", ".join(f"{safe_text(gpu.name, 60)} ({gpu.uuid})" for gpu in seen) or "none"
        raise ConfigError("No such GPU", f'"{safe_text(uuid, 80)}" is not among those seen here: {there}')
    if not found:
        hidden = ["CUDA_VISIBLE_DEVICES hides every GPU from this program."] if gpus else []
        return None, [reason, *other_graphics()] if not gpus else hidden
    gpu = found[0]
    if against := hindrance(gpu):
        other = next((choice for choice in gpu_choices(gpus) if choice.best), None)
        instead = f' Set training.device = "{other.device}", the {safe_text(other.card.name, 60)}.' if other else ""
        return None, [f"{safe_text(gpu.name, 60)}: {against}{instead}"]
    return gpu, _remarks(gpu)


def _remarks(gpu: Gpu) -> list[str]:
    card, said = card_of(gpu), []
    if card.remark:
        said.append(safe_text(f"{card.remark[:1].upper()}{card.remark[1:]}."))
    if card.capability < (8, 0):
        said.append("It has no bf16 units: a run computes in float32, which is slower and takes twice the memory.")
    if (taken := _taken_by_others(gpu)) >= BUSY_GB:
        who = holders(gpu) or ("a desktop" if gpu.shared else "others")
        said.append(f"{taken:.1f} GB of its memory are taken: {who}.")
    elif gpu.shared:
        said.append("A desktop is drawn on it and may want memory while the run goes on.")
    return said


def _described(vram_gb: float, name: str) -> tuple[Card, list[str]]:
    if not name:
        if vram_gb <= 0:
            raise ConfigError("No card is described", "neither its name nor its memory is given")
        card = typical_card(vram_gb)
        return card, [f"No card is named: one like the {card.name} is assumed."]
    found = card_named(name, vram_gb)
    if found is None:
        names = sorted({each.name for each in known_cards()})
        asked = name.upper().replace("NVIDIA", "").replace("GEFORCE", "").strip()
        near = difflib.get_close_matches(asked, names, 3, 0.5)
        hint = f"Did you mean {', '.join(near)}? " if near else ""
        hint += "Or leave the name out and give the card's memory alone."
        raise ConfigError("No known card is called that", f'"{safe_text(name, 80)}" is not in the table', hint)
    if not vram_gb or abs(found.vram_gb - vram_gb) <= SAME_SIZE * vram_gb:
        sizes = [] if vram_gb else [f"{size:.0f} GB" for size in other_sizes(found)]
        also = f"The {found.label} is meant; there is one with {' and '.join(sizes)} too."
        # The box counts what ECC takes, the table does not; who asks for less than the card has gets less.
        return replace(found, vram_gb=min(found.vram_gb, vram_gb or found.vram_gb)), [also] if sizes else []
    asked = f"The {found.name} has {found.vram_gb:.0f} GB; it is taken with {vram_gb:.0f} GB, as asked."
    return replace(found, vram_gb=vram_gb), [asked]


def _sentence(gpu: Gpu, card: Card, best: Gpu | None, most: float, cards: dict[Gpu, Card]) -> str:
    """What speaks for a usable GPU, then against it."""
    free = free_for_a_run(gpu)
    said = [f"{free:.1f} of {card.vram_gb:.1f} GB free"]
    if best is not None and gpu is not best:
        ratio = cards[best].rates.wide / (card.rates.wide or 1.0)
        if ratio > 1.05:
            said.append(f"about {ratio:.1f} times slower than the {safe_text(cards[best].name, 60)}")
        elif free < ROOM * most:
            said.append("less room than another here")
    if (taken := _taken_by_others(gpu)) >= BUSY_GB and (who := holders(gpu)):
        said.append(f"{taken:.1f} GB taken by {who}")
    if gpu.shared:
        said.append("shared with a desktop")
    if best is not None and (reach := card.link_gb_s) < 0.6 * cards[best].link_gb_s:
        said.append(f"a slower link, {reach:.0f} GB/s")
    if card.capability < (8, 0):
        said.append("no bf16, so it computes in float32")
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}."


def _taken_by_others(gpu: Gpu) -> float:
    return max((gpu.used_gb or 0.0) - (gpu.own_gb or 0.0), 0.0)


def _hidden(gpu: Gpu) -> str:
    if gpu.slice:
        return "A process sees one MIG slice alone; name this one in CUDA_VISIBLE_DEVICES to use it."
    return "Hidden from this program: CUDA_VISIBLE_DEVICES leaves it out, or names a MIG slice."


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
