"""Graphics hardware that this program does not train on: found so that it can be said plainly, without torch."""

from __future__ import annotations

import platform
from pathlib import Path

_MAKERS = {"0x1002": "AMD", "0x8086": "Intel"}
"""PCI vendors by the number that Linux gives."""

APPLE = (
    "Apple's GPU (MPS) is not used: training runs on the processor here, which is only good for the demonstration."
)


def other_graphics(drm: Path = Path("/sys/class/drm"), system: str = "", machine: str = "") -> tuple[str, ...]:
    """A sentence for each kind of graphics hardware here that is not NVIDIA's; empty for who has none.

    Args:
        system: as ``platform.system()`` has it; empty asks.
    """
    system, machine = system or platform.system(), machine or platform.machine()
    if system == "Darwin":
        return (APPLE,) if machine == "arm64" else ()
    found = {_vendor(card) for card in sorted(drm.glob("card[0-9]*")) if "-" not in card.name}
    return tuple(_sentence(maker) for maker in ("AMD", "Intel") if maker in found)


def nvidia_on_bus(pci: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Whether Linux sees a graphics card of NVIDIA's, with or without a driver for it."""
    cards = (device for device in pci.glob("*") if _read(device / "class").startswith("0x03"))
    return any(_read(card / "vendor") == "0x10de" for card in cards)


def _vendor(card: Path) -> str:
    return _MAKERS.get(_read(card / "device" / "vendor"), "")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _sentence(maker: str) -> str:
    if maker == "AMD":
        return (
            "An AMD card is here. A ROCm build of torch may train on it, but that is untested; 8-bit products, "
            "memory figures and forecasts are missing for it: expect limits."
        )
    return "An Intel GPU is here; it can draw the desktop, but it cannot train."
