"""The cards: what they have, who holds it, and what keeps them below what they could."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.hardware.card_table import sheet_of, short_name
from engine.hardware.cards import Card, card_of, link_gb_s
from engine.hardware.gpu import Gpu
from engine.hardware.software import runs_on
from engine.text import safe_text
from profiles.machine import BUSY_GB, GpuChoice, free_for_a_run, gpu_choices, holders
from tui.doctor.finding import Finding, Verdict

LEAST_GB = 7.5
"""Cards are sold with 8 GB from which on FLUX.1 is known to fit."""

HOT = 85
"""Degrees from which on cards slow down, or soon will."""

LOWERED = 0.75
"""Share of the power limit it came with below which a card is much slower."""


@dataclass(frozen=True)
class Graphics:
    """What was read of graphics hardware.

    Attributes:
        reason: why there are no GPUs.
        others: sentences on hardware of other makers.
        torch: what torch told of itself, empty where it cannot be imported.
        devices: what it told of each card it sees, in its order.
        visible: CUDA_VISIBLE_DEVICES, None where it is not set.
        nvidia_on_bus: the system sees a card of NVIDIA's, whatever the driver says.
    """

    gpus: Sequence[Gpu]
    reason: str
    others: Sequence[str]
    torch: Mapping[str, Any]
    devices: Sequence[Mapping[str, Any]] = ()
    visible: str | None = None
    nvidia_on_bus: bool = False


def graphics_findings(read: Graphics) -> list[Finding]:
    """Findings on every card, and on what is there beside them."""
    found: list[Finding] = []
    if not read.gpus:
        found.append(_none(read))
    choices = gpu_choices(read.gpus, read.visible)
    another = any(choice.usable for choice in choices)
    for choice in choices:
        found += _card_findings(choice, read, another)
    found += _choice(choices) + _as_torch_sees(choices, read.devices)
    # Beside an NVIDIA card, the graphics of a processor are nothing to worry about.
    verdict: Verdict = "ok" if read.gpus else "warn"
    remedy = "" if read.gpus else "For FLUX.1 take a machine with an NVIDIA card."
    return found + [Finding("graphics", "other makers", verdict, sentence, do=remedy) for sentence in read.others]


def _none(read: Graphics) -> Finding:
    why = "The demonstration trains on the processor; FLUX.1 would take days."
    if read.nvidia_on_bus:
        return Finding(
            "graphics", "GPU", "bad", f"an NVIDIA card is in the machine, but: {safe_text(read.reason, 300)}", why,
            "Install the NVIDIA driver (nvidia.com/drivers, or your system's package) and restart. In a container or "
            "a virtual machine, hand the card to it (docker run --gpus all).",
        )  # fmt: skip
    return Finding(
        "graphics", "GPU", "bad", f"none that can train: {safe_text(read.reason, 300)}", why,
        "Datasets, captions and plans work here (`kiln plan --gpu NAME`); train where an NVIDIA card is.",
    )  # fmt: skip


def _card_findings(choice: GpuChoice, read: Graphics, another: bool) -> list[Finding]:
    gpu, card = choice.gpu, choice.card
    subject = f"GPU {gpu.index}" + (f" {gpu.slice}" if gpu.slice else "")
    name = safe_text(short_name(gpu.name), 60)
    if not choice.usable:
        remedy = "Nothing, another card trains." if another else "For FLUX.1 take a newer card."
        if not choice.device:
            remedy = "Change CUDA_VISIBLE_DEVICES to use it."
        elif gpu.mig:
            remedy = f"nvidia-smi -i {gpu.index} -mig 0 switches MIG off, where nobody else needs it."
        return [Finding("graphics", subject, "warn" if another else "bad", name, choice.why, remedy)]
    checks = (_memory, _generation, _link, _power, _heat)
    return [found for check in checks if (found := check(subject, gpu, card, read)) is not None]


def _memory(subject: str, gpu: Gpu, card: Card, _: Graphics) -> Finding:
    free, name = free_for_a_run(gpu), safe_text(card.label, 60)
    what = f"{name}: {free:.1f} of {card.vram_gb:.1f} GB free"
    used = max((gpu.used_gb or 0.0) - (gpu.own_gb or 0.0), 0.0)
    who = holders(gpu) or ("a desktop" if gpu.shared else "a process that the driver does not name")
    if card.vram_gb < LEAST_GB:
        return Finding(
            "graphics", subject, "warn", what, "FLUX.1 is known to fit from 8 GB on, by streaming its weights.",
            "Try 512 px and rank 4: `kiln plan` says whether that fits.",
        )  # fmt: skip
    if used >= BUSY_GB:
        much = used > card.vram_gb / 4
        remedy = "End what is not needed before a run; what a desktop holds can be planned for."
        return Finding(
            "graphics", subject, "warn" if much or not gpu.shared else "ok", what, f"Held by {who}.", remedy
        )
    return Finding("graphics", subject, "ok", what, f"Held by {who}." if gpu.processes else "")


def _generation(subject: str, gpu: Gpu, card: Card, read: Graphics) -> Finding | None:
    """Whether this torch has code for the card, and what the card lacks."""
    if gpu.compute_capability is None or not read.torch.get("arches"):
        return None
    has = ".".join(map(str, gpu.compute_capability))
    how = runs_on(read.torch["arches"], gpu.compute_capability)
    if not how:
        built = " ".join(arch for arch in read.torch["arches"] if arch.startswith("sm_"))
        return Finding(
            "graphics", subject, "bad", f"compute capability {has} is not among those of this torch: {built}",
            "No kernel would start on it.",
            "Install a torch whose build covers the card: the newest for new cards, one for CUDA 12.6 for old ones.",
        )  # fmt: skip
    if gpu.compute_capability < (8, 0):
        return Finding(
            "graphics", subject, "warn", f"compute capability {has} has no bf16 units",
            "Runs compute in float32: slower, and twice the memory where weights are not packed.",
            'Set memory.precision = "int8": its products run at full speed on RTX cards of this age.',
        )  # fmt: skip
    if how == "translated":
        return Finding(
            "graphics", subject, "warn", f"compute capability {has} is newer than this torch",
            "The driver translates its code when it is first used: minutes once, and slower kernels.",
            "Install a newer torch when there is one.",
        )  # fmt: skip
    eight = "int8 and fp8" if gpu.compute_capability >= (8, 9) else "int8"
    return Finding("graphics", subject, "ok", f"compute capability {has}: bf16, {eight} in hardware")


def _link(subject: str, gpu: Gpu, card: Card, _: Graphics) -> Finding | None:
    link, sheet = gpu.link, sheet_of(gpu.name, gpu.total_gb or 0.0)
    generation, lanes = link.most_generation or link.generation, link.width
    if not generation or not lanes:
        return None
    could = sheet.lanes if sheet is not None else link.most_width or lanes
    newest = max(sheet.generation if sheet is not None else 0, generation)
    best = link_gb_s(newest, could)
    link_text = f"PCIe {generation}.0 x{lanes}: weights arrive at {card.link_gb_s:.0f}"
    what, less = f"{link_text} GB/s", f"{link_text} of {best:.0f} GB/s"
    if lanes < could:
        return Finding(
            "graphics", subject, "warn", less,
            f"It has {could} lanes and uses {lanes}: streamed blocks and caching are slower, the rest is not.",
            "Put it in the slot next to the processor, without a riser, and look at the lanes in the BIOS.",
        )  # fmt: skip
    if generation < newest:
        return Finding(
            "graphics", subject, "warn", less,
            f"The board offers PCIe {generation}.0, the card knows {newest}.0: only streamed blocks are slower.",
            "See whether the BIOS holds the slot at an older generation; else leave it.",
        )  # fmt: skip
    return Finding("graphics", subject, "ok", what)


def _power(subject: str, gpu: Gpu, _: Card, __: Graphics) -> Finding | None:
    limit, default = gpu.limit_watts, gpu.default_watts
    if not limit or not default or limit >= 0.98 * default:
        return None
    what = f"its power limit is {limit:.0f} W, it came with {default:.0f} W"
    if limit >= LOWERED * default:
        return Finding("graphics", subject, "ok", what, "That costs little speed.")
    return Finding(
        "graphics", subject, "warn", what, "So far down it costs speed.",
        f"Where cooling allows: nvidia-smi -i {gpu.index} -pl {default:.0f}",
    )  # fmt: skip


def _heat(subject: str, gpu: Gpu, _: Card, __: Graphics) -> Finding | None:
    if gpu.celsius is None or gpu.celsius < HOT:
        return None
    return Finding(
        "graphics", subject, "warn", f"{gpu.celsius:.0f} °C now", "It slows itself down to stay whole.",
        "Look at fans, dust and the air around it before a long run.",
    )  # fmt: skip


def _choice(choices: Sequence[GpuChoice]) -> list[Finding]:
    """Of several cards: which one a run takes by itself, and which it should."""
    seen = [choice for choice in choices if choice.device]
    if len(seen) < 2:
        return []
    first = next(choice for choice in seen if choice.device == "cuda:0")
    best = next((choice for choice in seen if choice.best), first)
    name = safe_text(best.card.label, 60)
    if best is first:
        return [Finding("graphics", "choice", "ok", f"runs take GPU {first.gpu.index}, the {name}")]
    ratio = best.card.rates.wide / (first.card.rates.wide or 1.0)
    faster = f"It multiplies {ratio:.1f} times as fast; " if ratio > 1.05 else ""
    free, other = free_for_a_run(best.gpu), free_for_a_run(first.gpu)
    return [
        Finding(
            "graphics", "choice", "warn", f"runs take GPU {first.gpu.index} by themselves; the {name} is better",
            f"{faster}{free:.1f} GB of it are free, of the other {other:.1f}.",
            f'Set training.device = "{best.device}".',
        )
    ]  # fmt: skip


def _as_torch_sees(choices: Sequence[GpuChoice], devices: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Where torch counts the cards in another order, or computes wrongly on one."""
    found = [
        Finding(
            "graphics", "products", "bad", f"torch's cuda:{number} gives a wrong result for a small product",
            "Whatever is trained on it is spoilt.", "Undo overclocking, update the driver, test the card's memory.",
        )
        for number, device in enumerate(devices)
        if not device["computes"]
    ]  # fmt: skip
    expected = [choice.gpu.uuid for choice in sorted(choices, key=_order) if choice.device]
    seen = [str(device["uuid"]) for device in devices]
    if len(seen) == len(expected) > 1 and not all(map(str.endswith, expected, seen)):
        found.append(
            Finding(
                "graphics", "numbers", "warn", "torch counts the cards in another order than nvidia-smi",
                "A device named here, and memory shown while training, may be another card's.",
                "Set CUDA_DEVICE_ORDER=PCI_BUS_ID, or leave it unset.",
            )
        )  # fmt: skip
    return found


def _order(choice: GpuChoice) -> int:
    return int(choice.device.removeprefix("cuda:") or -1)


def cards_in_json(gpus: Sequence[Gpu]) -> list[dict[str, Any]]:
    """Every GPU's name and sizes as plain values, for reports."""
    return [
        {
            "index": gpu.index,
            "name": safe_text(gpu.name, 80),
            "uuid": safe_text(gpu.uuid, 80),
            "vram_gb": gpu.total_gb,
            "free_gb": gpu.free_gb,
            "compute_capability": gpu.compute_capability,
            "driver": safe_text(gpu.driver, 40),
            "link_gb_s": card_of(gpu).link_gb_s,
        }
        for gpu in gpus
    ]
