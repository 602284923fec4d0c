"""Graphics cards as a forecast sees them: what they hold, how fast they compute and how fast weights reach them.

Known ones come from :mod:`engine.hardware.card_table`; a card that is there is known by its driver's name, and its
driver's memory and PCIe link win over the table. One that is not in the table is taken for its slowest relative, and
says so. Torch-free. Memory in GiB, as the driver and the card's box count it; rates as :mod:`engine.hardware.rates`
has them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from engine.errors import ConfigError
from engine.hardware.card_table import LANE_GB_S, SHEETS, Sheet, sheet_of, short_name
from engine.hardware.gpu import Gpu, Link
from engine.hardware.rates import CardRates, rates_in
from engine.text import safe_text

LINK_SHARE = 0.78
"""Of what a PCIe link has by name, what large copies from pinned memory reach."""

OLDEST = (7, 5)
"""Turing: the oldest compute capability that the torch of this program is built for."""

SAME_SIZE = 0.12
"""Two figures of a card's memory mean the same one if they differ by no more: boxes count what ECC takes."""


@dataclass(frozen=True)
class Card:
    """One kind of card.

    Attributes:
        name: as the driver gives it, without the maker's name: "RTX 4090".
        vram_gb: all of its memory, GiB.
        capability: CUDA's compute capability, (8, 9) for Ada.
        link_gb_s: GB/s (1e9) that reach it from pinned host memory: about 0.78 of what its PCIe generation and
            width have by name.
        remark: where the rates are not the card's own: what they were taken from.
    """

    name: str
    vram_gb: float
    capability: tuple[int, int]
    rates: CardRates
    link_gb_s: float
    remark: str = ""

    @property
    def label(self) -> str:
        """Name and memory, "RTX 3060 12 GB", for where two sizes are sold under one name."""
        size = f"{_boxed(self.vram_gb):.0f}"
        told = re.search(rf"\b{size} ?GB\b", self.name)
        return self.name if told else f"{self.name} {size} GB"


def link_gb_s(generation: int, lanes: int) -> float:
    """GB/s that copies reach over a PCIe link; a generation newer than any known counts as the newest known."""
    each = LANE_GB_S[min(max(generation, min(LANE_GB_S)), max(LANE_GB_S))]
    return round(LINK_SHARE * each * lanes, 1)


def known_cards() -> tuple[Card, ...]:
    """Every card of the table: consumer cards first, the newest first among them."""
    return tuple(map(_card, SHEETS))


def card_named(text: str, vram_gb: float = 0.0) -> Card | None:
    """The known card that a user means by ``text``: "3060", "RTX 3060 12GB", "nvidia geforce rtx 4090".

    Of one name with two memory sizes the usual one is meant where neither ``text`` nor ``vram_gb`` tells.

    Args:
        vram_gb: memory the user named elsewhere; decides where it can, and may be another than any card's.

    Raises:
        ConfigError: several cards are called that.
    """
    asked, size = _words(text)
    if not asked:
        return None
    sheets = [sheet for sheet in SHEETS if asked <= _words(sheet.name)[0] | set(sheet.also)]
    if size:
        sheets = [sheet for sheet in sheets if _is_size(sheet.vram_gb, size)]
    exact = [sheet for sheet in sheets if _words(sheet.name)[0] <= asked]
    sheets = exact or sheets
    if vram_gb:
        sheets = [sheet for sheet in sheets if _is_size(sheet.vram_gb, vram_gb)] or sheets
    if len({sheet.name for sheet in sheets}) > 1:
        several = f'"{safe_text(text, 80)}" may be {", ".join(_card(sheet).label for sheet in sheets)}'
        raise ConfigError("More than one card is called that", several, "Name one of them in full.")
    return _card(sheets[0]) if sheets else None


def other_sizes(card: Card) -> tuple[float, ...]:
    """Memory sizes that cards of this name are sold with beside this one, GiB."""
    return tuple(each.vram_gb for each in SHEETS if each.name == card.name and each.vram_gb != card.vram_gb)


def typical_card(vram_gb: float) -> Card:
    """A card that stands for all of this much memory where none is named: no fast one, of no old generation."""
    sheet = sheet_of("RTX 4060", 8)
    for name, size in _TYPICAL:
        if size <= vram_gb * (1 + SAME_SIZE):
            sheet = sheet_of(name, size)
    assert sheet is not None
    return replace(_card(sheet), vram_gb=vram_gb)


_TYPICAL = (
    ("RTX 3080", 10.0), ("RTX 3060", 12.0), ("RTX 4060 Ti", 16.0), ("RTX 3090", 24.0), ("RTX 5090", 32.0),
    ("A100-PCIE-40GB", 40.0), ("RTX A6000", 48.0), ("A100 80GB PCIe", 80.0),
    ("RTX PRO 6000 Blackwell Server Edition", 95.6), ("H200", 140.4),
)  # fmt: skip


def card_of(gpu: Gpu) -> Card:
    """The card that a GPU of this machine is: its own memory and link, the table's rates or its next of kin's."""
    total = gpu.total_gb or 0.0
    if gpu.slice:
        return _slice(gpu)
    sheet = sheet_of(gpu.name, total)
    if sheet is None:
        return _stranger(gpu)
    card = _card(sheet)
    link = _measured_link(gpu.link)
    # The driver knows its own capability; a table cannot be newer than the card.
    return replace(
        card,
        vram_gb=round(total, 2) or card.vram_gb,
        capability=gpu.compute_capability or card.capability,
        link_gb_s=link or card.link_gb_s,
    )


def _card(sheet: Sheet) -> Card:
    link = link_gb_s(sheet.generation, sheet.lanes)
    return Card(sheet.name, sheet.vram_gb, sheet.capability, rates_in(sheet), link)


def _measured_link(link: Link) -> float:
    """GB/s of a GPU's link under load, 0 where nobody tells: lanes stay, the generation falls when idle."""
    generation, lanes = link.most_generation or link.generation, link.width or link.most_width
    return link_gb_s(generation, lanes) if generation and lanes else 0.0


def _stranger(gpu: Gpu) -> Card:
    """A card that no table knows: as fast as the slowest of its generation with about its memory."""
    capability, name = gpu.compute_capability or OLDEST, short_name(gpu.name)
    kin = _kin(capability)
    total = gpu.total_gb or min(sheet.vram_gb for sheet in kin)
    near = min(abs(sheet.vram_gb - total) for sheet in kin)
    alike = [sheet for sheet in kin if abs(sheet.vram_gb - total) <= near + SAME_SIZE * total]
    relative = min(alike, key=lambda sheet: rates_in(sheet).wide)
    rates = rates_in(relative)
    if capability < OLDEST:
        rates = replace(rates, bf16=0.0, int8=0.0, fp8=0.0)
    told = f"compute capability {capability[0]}.{capability[1]}" if gpu.compute_capability else "capability unknown"
    return Card(
        name,
        round(total, 2),
        capability,
        rates,
        _measured_link(gpu.link) or link_gb_s(relative.generation, min(relative.lanes, 8)),
        f"{name} ({told}) is not among the known cards: times are those of a {_card(relative).label}, a guess that "
        "measured steps correct",
    )


def _kin(capability: tuple[int, int]) -> list[Sheet]:
    """Cards of a generation; of the newest older one where there are none, of the oldest below all."""
    known = sorted({sheet.capability for sheet in SHEETS})
    older = [each for each in known if each <= capability]
    return [sheet for sheet in SHEETS if sheet.capability == (older[-1] if older else known[0])]


def _slice(gpu: Gpu) -> Card:
    """A MIG slice: compute by its sevenths of the card, bandwidth by its share of the memory; the link is shared."""
    whole = short_name(re.split(r"\s+MIG\b", gpu.name)[0])
    # Its name tells the card, its memory does not: a slice of a card with two sizes is taken from the larger.
    sheet = max((each for each in SHEETS if each.name == whole), key=lambda each: each.vram_gb, default=None)
    card = _card(sheet) if sheet is not None else _stranger(replace(gpu, total_gb=80.0))
    parts = re.match(r"(\d+)(?:c\.\d+)?g\.", gpu.slice)
    share = min(int(parts.group(1)), 7) / 7 if parts else 1 / 7
    total = gpu.total_gb or card.vram_gb * share
    rates = card.rates
    return Card(
        f"{whole} {gpu.slice}",
        round(total, 2),
        gpu.compute_capability or card.capability,
        CardRates(
            rates.bf16 * share,
            rates.int8 * share,
            rates.fp8 * share,
            rates.bandwidth * min(total / card.vram_gb, 1.0),
            rates.float32 * share,
        ),
        _measured_link(gpu.link) or card.link_gb_s,
        f"a MIG slice with {share:.0%} of the {whole}'s multiprocessors; its PCIe link is shared with other slices",
    )


_MEANS_NOTHING = {
    "nvidia", "geforce", "rtx", "gtx", "tesla", "gpu", "graphics", "card", "generation", "edition", "vram",
}  # fmt: skip
_SAME_WORD = {"mobile": "laptop", "notebook": "laptop", "m": "laptop"}


def _words(text: str) -> tuple[frozenset[str], float]:
    """The words that tell one card from another, and the memory in GB that the text names (0: none)."""
    lower = text.lower()
    size = re.search(r"\b(\d{1,3})(?:\.\d)?\s*(?:gb|gib|g)\b", lower)
    if size:
        lower = lower[: size.start()] + " " + lower[size.end() :]
    lower = re.sub(r"\b(rtx|gtx)(?=\w)|(?<=\d{4})(?=(?:ti|super|d|laptop|m)\b)", r"\1 ", lower)  # rtx3060ti
    words = {_SAME_WORD.get(word, word) for word in re.findall(r"[a-z0-9]+", lower)}
    return frozenset(words - _MEANS_NOTHING), float(size.group(1)) if size else 0.0


def _is_size(vram_gb: float, asked: float) -> bool:
    return abs(vram_gb - asked) <= SAME_SIZE * max(vram_gb, asked)


def _boxed(vram_gb: float) -> float:
    """The size on the box: what ECC takes is counted there."""
    return next((size for size in (16, 24, 48, 80, 94, 96, 141, 180) if 0.93 <= vram_gb / size < 1), vram_gb)
