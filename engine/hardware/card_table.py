"""The figures that makers publish of their cards, Turing to Blackwell: the one table that rates and cards read.

Rates are dense (no sparsity), products summed in float32 (int8: in int32). Where the white papers give operations per
clock and multiprocessor, a row holds multiprocessors and boost clock, and the rates follow; where a data sheet gives
rates, the row holds those. Laptop cards stand at the top of their published clock range: thin ones keep less.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sheet:
    """What is published of one kind of card.

    Attributes:
        name: as the driver gives it, without the maker's name.
        vram_gb: GiB that the driver counts; ECC takes its share of GDDR memory on data-centre cards.
        bf16: TFLOP/s, and so on (int8: TOP/s); 0 where the card has no units for it.
        float32: of ordinary units, not in the rounded format "TF32".
        bandwidth: GB/s (1e9) of its own memory.
        generation: of its PCIe link, ``lanes`` wide.
        also: words that people use for it and that its name lacks.
    """

    name: str
    vram_gb: float
    capability: tuple[int, int]
    bf16: float
    int8: float
    fp8: float
    float32: float
    bandwidth: float
    generation: int
    lanes: int = 16
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Family:
    """Operations per clock and multiprocessor, in thousands' steps of two: 512 is 256 multiply-adds."""

    capability: tuple[int, int]
    bf16: int
    int8: int
    fp8: int
    float32: int
    generation: int


_Row = tuple[str, float, int, float, float, int]
"""Name, GiB, multiprocessors, boost clock in GHz, GB/s, PCIe lanes."""


def _sheets(family: _Family, rows: tuple[_Row, ...]) -> list[Sheet]:
    """Rows of a family, with rates from multiprocessors and clock."""
    sheets = []
    for name, vram_gb, count, ghz, bandwidth, lanes in rows:
        bf16, int8, fp8, float32 = (
            round(count * ghz * each / 1000, 1) for each in (family.bf16, family.int8, family.fp8, family.float32)
        )
        sheets.append(
            Sheet(name, vram_gb, family.capability, bf16, int8, fp8, float32, bandwidth, family.generation, lanes)
        )
    return sheets


# Turing has tensor cores for float16 and int8, none for bf16 (NVIDIA Turing GPU Architecture, appendix A; boost
# clocks of the reference cards). The GTX 16 series has no tensor cores at all.
_TURING_GTX = _Family((7, 5), 0, 0, 0, 128, 3)
_TURING = _Family((7, 5), 0, 2048, 0, 128, 3)
# GeForce halves the rate of products summed in float32 (NVIDIA Ampere GA102 GPU Architecture, table 3; NVIDIA Ada GPU
# Architecture, appendix A; NVIDIA RTX Blackwell GPU Architecture, appendix A), the same chips in workstation cards
# do not (data sheets of RTX A6000, RTX 6000 Ada, RTX PRO 6000).
_AMPERE = _Family((8, 6), 512, 2048, 0, 256, 4)
_AMPERE_PRO = _Family((8, 6), 1024, 2048, 0, 256, 4)
_ADA = _Family((8, 9), 512, 2048, 1024, 256, 4)
_ADA_PRO = _Family((8, 9), 1024, 2048, 2048, 256, 4)
_BLACKWELL = _Family((12, 0), 512, 2048, 1024, 256, 5)
_BLACKWELL_PRO = _Family((12, 0), 1024, 2048, 2048, 256, 5)

# Where one name is sold with two memory sizes, the usual one stands first.

# Desktop cards of the Turing paper; the refresh of 2019 (SUPER) and the 2060 of 2021 from NVIDIA's product pages.
_TURING_ROWS: tuple[_Row, ...] = (
    ("TITAN RTX", 24, 72, 1.770, 672, 16),
    ("RTX 2080 Ti", 11, 68, 1.545, 616, 16),
    ("RTX 2080 SUPER", 8, 48, 1.815, 496, 16),
    ("RTX 2080", 8, 46, 1.710, 448, 16),
    ("RTX 2070 SUPER", 8, 40, 1.770, 448, 16),
    ("RTX 2070", 8, 36, 1.620, 448, 16),
    ("RTX 2060 SUPER", 8, 34, 1.650, 448, 16),
    ("RTX 2060", 6, 30, 1.680, 336, 16),
    ("RTX 2060", 12, 34, 1.650, 336, 16),
    ("Quadro RTX 8000", 48, 72, 1.770, 672, 16),
    ("Quadro RTX 6000", 24, 72, 1.770, 672, 16),
    ("Quadro RTX 5000", 16, 48, 1.815, 448, 16),
    ("Quadro RTX 4000", 8, 36, 1.545, 416, 16),
    ("Tesla T4", 15, 40, 1.590, 320, 16),
)
_TURING_GTX_ROWS: tuple[_Row, ...] = (
    ("GTX 1660 Ti", 6, 24, 1.770, 288, 16),
    ("GTX 1660 SUPER", 6, 22, 1.785, 336, 16),
    ("GTX 1660", 6, 22, 1.785, 192, 16),
    ("GTX 1650", 4, 14, 1.665, 128, 16),
)

# GA102 paper (3080, 3090); the others and the laptops from NVIDIA's comparison of GeForce cards.
_AMPERE_ROWS: tuple[_Row, ...] = (
    ("RTX 3090 Ti", 24, 84, 1.860, 1008, 16),
    ("RTX 3090", 24, 82, 1.695, 936, 16),
    ("RTX 3080 Ti", 12, 80, 1.665, 912, 16),
    ("RTX 3080", 10, 68, 1.710, 760, 16),
    ("RTX 3080", 12, 70, 1.710, 912, 16),
    ("RTX 3070 Ti", 8, 48, 1.770, 608, 16),
    ("RTX 3070", 8, 46, 1.725, 448, 16),
    ("RTX 3060 Ti", 8, 38, 1.665, 448, 16),
    ("RTX 3060", 12, 28, 1.777, 360, 16),
    ("RTX 3060", 8, 28, 1.777, 240, 16),
    ("RTX 3050", 8, 20, 1.777, 224, 8),
    ("RTX 3050", 6, 18, 1.470, 168, 8),
    ("RTX 3080 Ti Laptop GPU", 16, 58, 1.590, 512, 16),
    ("RTX 3080 Laptop GPU", 16, 48, 1.710, 448, 16),
    ("RTX 3080 Laptop GPU", 8, 48, 1.710, 448, 16),
    ("RTX 3070 Ti Laptop GPU", 8, 46, 1.485, 448, 16),
    ("RTX 3070 Laptop GPU", 8, 40, 1.620, 448, 16),
    ("RTX 3060 Laptop GPU", 6, 30, 1.703, 336, 16),
    ("RTX 3050 Ti Laptop GPU", 4, 20, 1.695, 192, 8),
    ("RTX 3050 Laptop GPU", 4, 16, 1.740, 192, 8),
)
# Data sheets of the cards. A40 and A10 have ECC switched on.
_AMPERE_PRO_ROWS: tuple[_Row, ...] = (
    ("RTX A6000", 48, 84, 1.800, 768, 16),
    ("RTX A5500", 24, 80, 1.665, 768, 16),
    ("RTX A5000", 24, 64, 1.695, 768, 16),
    ("RTX A4500", 20, 56, 1.650, 640, 16),
    ("RTX A4000", 16, 48, 1.560, 448, 16),
    ("RTX A2000 12GB", 12, 26, 1.200, 288, 16),
    ("RTX A2000", 6, 26, 1.200, 288, 16),
    ("A40", 45, 84, 1.740, 696, 16),
    ("A10", 22.5, 72, 1.695, 600, 16),
    ("A2", 15, 10, 1.770, 200, 8),
)

# Ada paper (4090, 4080); the others and the laptops from NVIDIA's comparison of GeForce cards.
_ADA_ROWS: tuple[_Row, ...] = (
    ("RTX 4090", 24, 128, 2.520, 1008, 16),
    ("RTX 4090 D", 24, 114, 2.520, 1008, 16),
    ("RTX 4080 SUPER", 16, 80, 2.550, 736, 16),
    ("RTX 4080", 16, 76, 2.505, 717, 16),
    ("RTX 4070 Ti SUPER", 16, 66, 2.610, 672, 16),
    ("RTX 4070 Ti", 12, 60, 2.610, 504, 16),
    ("RTX 4070 SUPER", 12, 56, 2.475, 504, 16),
    ("RTX 4070", 12, 46, 2.475, 504, 16),
    ("RTX 4060 Ti", 8, 34, 2.535, 288, 8),
    ("RTX 4060 Ti", 16, 34, 2.535, 288, 8),
    ("RTX 4060", 8, 24, 2.460, 272, 8),
    ("RTX 4090 Laptop GPU", 16, 76, 2.040, 576, 16),
    ("RTX 4080 Laptop GPU", 12, 58, 2.280, 432, 16),
    ("RTX 4070 Laptop GPU", 8, 36, 2.175, 256, 8),
    ("RTX 4060 Laptop GPU", 8, 24, 2.370, 256, 8),
    ("RTX 4050 Laptop GPU", 6, 20, 2.370, 192, 8),
)
# Data sheets of the cards.
_ADA_PRO_ROWS: tuple[_Row, ...] = (
    ("RTX 6000 Ada Generation", 48, 142, 2.505, 960, 16),
    ("RTX 5000 Ada Generation", 32, 100, 2.550, 576, 16),
    ("RTX 4500 Ada Generation", 24, 60, 2.580, 432, 16),
    ("RTX 4000 Ada Generation", 20, 48, 2.175, 360, 16),
    ("RTX 4000 SFF Ada Generation", 20, 48, 1.560, 280, 16),
    ("RTX 2000 Ada Generation", 16, 22, 2.130, 224, 8),
    ("L4", 22.5, 58, 2.040, 300, 16),
)

# RTX Blackwell paper (5070 to 5090); the others and the laptops from NVIDIA's comparison of GeForce cards.
_BLACKWELL_ROWS: tuple[_Row, ...] = (
    ("RTX 5090", 32, 170, 2.407, 1792, 16),
    ("RTX 5080", 16, 84, 2.617, 960, 16),
    ("RTX 5070 Ti", 16, 70, 2.452, 896, 16),
    ("RTX 5070", 12, 48, 2.512, 672, 16),
    ("RTX 5060 Ti", 16, 36, 2.572, 448, 8),
    ("RTX 5060 Ti", 8, 36, 2.572, 448, 8),
    ("RTX 5060", 8, 30, 2.497, 448, 8),
    ("RTX 5050", 8, 20, 2.572, 320, 8),
    ("RTX 5090 Laptop GPU", 24, 82, 2.160, 896, 16),
    ("RTX 5080 Laptop GPU", 16, 60, 2.287, 896, 16),
    ("RTX 5070 Ti Laptop GPU", 12, 46, 2.220, 672, 16),
    ("RTX 5070 Laptop GPU", 8, 36, 2.347, 384, 8),
    ("RTX 5060 Laptop GPU", 8, 26, 2.497, 384, 8),
)
# Data sheets of the cards; clocks follow from their "AI TOPS" (4-bit, sparse: eight times the rate of bf16).
_BLACKWELL_PRO_ROWS: tuple[_Row, ...] = (
    ("RTX PRO 6000 Blackwell Workstation Edition", 95.6, 188, 2.617, 1792, 16),
    ("RTX PRO 6000 Blackwell Max-Q Workstation Edition", 95.6, 188, 2.280, 1792, 16),
    ("RTX PRO 6000 Blackwell Server Edition", 95.6, 188, 2.490, 1597, 16),
    ("RTX PRO 5000 Blackwell", 48, 110, 2.290, 1344, 16),
    ("RTX PRO 4500 Blackwell", 32, 82, 2.511, 896, 16),
    ("RTX PRO 4000 Blackwell", 24, 70, 2.055, 672, 16),
)

# Data sheets of the cards, rates as printed there without sparsity. The H200's bf16 rate and bandwidth are measured
# ones (published: 989 TFLOP/s, 4,800 GB/s), its 8-bit rate is taken as twice that.
_BY_DATA_SHEET = (
    Sheet("A10G", 22.5, (8, 6), 70, 140, 0, 35, 600, 4),
    Sheet("L40S", 45, (8, 9), 362, 733, 733, 91.6, 864, 4),
    Sheet("L40", 45, (8, 9), 181, 362, 362, 90.5, 864, 4),
    Sheet("A30", 24, (8, 0), 165, 330, 0, 10.3, 933, 4),
    Sheet("A100-SXM4-80GB", 80, (8, 0), 312, 624, 0, 19.5, 2039, 4, also=("sxm",)),
    Sheet("A100 80GB PCIe", 80, (8, 0), 312, 624, 0, 19.5, 1935, 4),
    Sheet("A100-SXM4-40GB", 40, (8, 0), 312, 624, 0, 19.5, 1555, 4, also=("sxm",)),
    Sheet("A100-PCIE-40GB", 40, (8, 0), 312, 624, 0, 19.5, 1555, 4),
    Sheet("H100 80GB HBM3", 79.6, (9, 0), 989, 1979, 1979, 67, 3350, 5, also=("sxm", "sxm5")),
    Sheet("H100 PCIe", 79.6, (9, 0), 756, 1513, 1513, 51, 2039, 5),
    Sheet("H100 NVL", 93.6, (9, 0), 835, 1671, 1671, 60, 3900, 5),
    Sheet("H200", 140.4, (9, 0), 790, 1580, 1580, 67, 4300, 5, also=("sxm", "sxm5")),
    Sheet("H200 NVL", 140.4, (9, 0), 835, 1671, 1671, 60, 4800, 5),
    Sheet("B200", 179.1, (10, 0), 2250, 4500, 4500, 75, 7700, 5, also=("sxm",)),
)

SHEETS: tuple[Sheet, ...] = (
    *_sheets(_BLACKWELL, _BLACKWELL_ROWS),
    *_sheets(_ADA, _ADA_ROWS),
    *_sheets(_AMPERE, _AMPERE_ROWS),
    *_sheets(_TURING, _TURING_ROWS),
    *_sheets(_TURING_GTX, _TURING_GTX_ROWS),
    *_sheets(_BLACKWELL_PRO, _BLACKWELL_PRO_ROWS),
    *_sheets(_ADA_PRO, _ADA_PRO_ROWS),
    *_sheets(_AMPERE_PRO, _AMPERE_PRO_ROWS),
    *_BY_DATA_SHEET,
)
"""Every card, consumer cards first, the newest first among them."""

LANE_GB_S = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
"""GB/s one way that a PCIe lane carries by name, by generation (PCI-SIG's base specifications)."""


def sheet_of(name: str, vram_gb: float = 0.0) -> Sheet | None:
    """The sheet of the card with this driver's name, whole; of two memory sizes the nearer one, else the usual."""
    short = short_name(name)
    found = [sheet for sheet in SHEETS if sheet.name == short]
    if not vram_gb:
        return found[0] if found else None
    return min(found, key=lambda sheet: abs(sheet.vram_gb - vram_gb), default=None)


def short_name(name: str) -> str:
    """A driver's name for a card without the maker's."""
    return name.removeprefix("NVIDIA ").removeprefix("GeForce ").strip()
