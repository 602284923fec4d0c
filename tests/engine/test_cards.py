"""The table of cards: what is published, what people call them, and what a card that is there becomes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.errors import ConfigError
from engine.hardware.card_table import SHEETS
from engine.hardware.cards import Card, card_named, card_of, known_cards, link_gb_s, other_sizes, typical_card
from engine.hardware.gpu import Gpu, Link
from engine.hardware.rates import rates_of


def gpu(name: str, total_gb: float | None, capability: tuple[int, int] | None = (8, 6), **more: object) -> Gpu:
    """A GPU as its driver would tell of it, nothing on it."""
    plain = Gpu(0, "GPU-0", name, total_gb, 0.0, total_gb, (), capability, "580.65", None, None, None)
    return replace(plain, **more)  # type: ignore[arg-type]


def named(text: str, vram_gb: float = 0.0) -> Card:
    card = card_named(text, vram_gb)
    assert card is not None, text
    return card


def test_rates_follow_the_white_papers() -> None:
    """Figures as printed there: they are not in the table, which has multiprocessors and clocks."""
    printed = {
        "RTX 5090": (209.5, 838, 419), "RTX 5080": (112.6, 450, 225), "RTX 5070": (61.7, 246.9, 123.5),
        "RTX 4090": (165.2, 660.6, 330.3), "RTX 4080": (97.5, 389.9, 194.9),
        "RTX 3090": (71, 284, 0), "RTX 3080": (59.5, 238, 0), "RTX 3060": (25.5, 101.9, 0),
        "RTX PRO 6000 Blackwell Workstation Edition": (503.8, 1007.6, 1007.6),
        "RTX A6000": (154.8, 309.7, 0), "RTX 6000 Ada Generation": (364.2, 728.5, 728.5),
        "A10": (125, 250, 0), "A40": (149.7, 299.3, 0), "L4": (121, 242, 242), "Tesla T4": (0, 130, 0),
    }  # fmt: skip
    for name, expected in printed.items():
        rates = rates_of(name)
        assert rates is not None
        assert (rates.bf16, rates.int8, rates.fp8) == pytest.approx(expected, rel=0.005), name


def test_turing_does_not_pretend_to_have_bf16() -> None:
    for card in known_cards():
        assert (card.rates.bf16 == 0) == (card.capability < (8, 0)), card.name
        assert (card.rates.fp8 > 0) == (card.capability >= (8, 9)), card.name
        assert card.rates.wide == (card.rates.bf16 or card.rates.float32) > 0


def test_every_card_is_whole_and_told_apart_by_name_and_memory() -> None:
    assert len({(sheet.name, sheet.vram_gb) for sheet in SHEETS}) == len(SHEETS)
    capabilities = {sheet.capability for sheet in SHEETS}
    assert capabilities == {(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)}
    for sheet in SHEETS:
        assert 4 <= sheet.vram_gb <= 180 and 100 < sheet.bandwidth < 8000
        assert sheet.generation in (3, 4, 5) and sheet.lanes in (8, 16)
        assert named(sheet.name, sheet.vram_gb).vram_gb == sheet.vram_gb  # its own name finds each


def test_links_reach_their_share_of_what_they_have_by_name() -> None:
    assert link_gb_s(4, 16) == link_gb_s(5, 8) == pytest.approx(25, rel=0.05)
    assert link_gb_s(3, 16) == pytest.approx(12.5, rel=0.05) and link_gb_s(3, 8) == pytest.approx(6.3, rel=0.05)
    assert link_gb_s(9, 16) == link_gb_s(6, 16) and link_gb_s(0, 1) > 0
    assert named("4060").link_gb_s == named("3060").link_gb_s / 2


@pytest.mark.parametrize(
    ("text", "name", "vram_gb"),
    [
        ("3060", "RTX 3060", 12), ("RTX 3060 12GB", "RTX 3060", 12), ("rtx 3060 8 gb", "RTX 3060", 8),
        ("3060ti", "RTX 3060 Ti", 8), ("nvidia geforce rtx 4090", "RTX 4090", 24), ("RTX4090", "RTX 4090", 24),
        ("4090 laptop", "RTX 4090 Laptop GPU", 16), ("rtx 4090 mobile", "RTX 4090 Laptop GPU", 16),
        ("4060 Ti 16G", "RTX 4060 Ti", 16), ("3080 12gb", "RTX 3080", 12), ("3080", "RTX 3080", 10),
        ("T4", "Tesla T4", 15), ("A10 24 GB", "A10", 22.5), ("l40", "L40", 45), ("L40S", "L40S", 45),
        ("a100 pcie 40gb", "A100-PCIE-40GB", 40), ("A100 SXM 80GB", "A100-SXM4-80GB", 80),
        ("H100 SXM", "H100 80GB HBM3", 79.6), ("h200", "H200", 140.4), ("b200", "B200", 179.1),
        ("6000 ada", "RTX 6000 Ada Generation", 48), ("A6000", "RTX A6000", 48), ("1660 ti", "GTX 1660 Ti", 6),
        ("RTX PRO 6000 Max-Q", "RTX PRO 6000 Blackwell Max-Q Workstation Edition", 95.6),
    ],
)  # fmt: skip
def test_cards_are_found_as_people_call_them(text: str, name: str, vram_gb: float) -> None:
    card = named(text)
    assert (card.name, card.vram_gb) == (name, vram_gb)


def test_memory_named_elsewhere_tells_two_cards_apart() -> None:
    assert named("RTX 3060", 8).rates.bandwidth == 240
    assert named("4060 ti", 16).vram_gb == 16
    assert named("RTX 3090", 12).vram_gb == 24  # nobody sells that; the caller decides
    assert other_sizes(named("3060")) == (8,) and other_sizes(named("3090")) == ()


@pytest.mark.parametrize(
    ("text", "candidates"),
    [
        ("A100", ["A100-SXM4-80GB", "A100-PCIE-40GB"]),
        ("RTX 6000", ["Quadro RTX 6000", "RTX 6000 Ada Generation", "RTX PRO 6000 Blackwell Server Edition"]),
        ("H100 80GB", ["H100 PCIe", "H100 80GB HBM3"]),
    ],
)
def test_what_may_be_several_cards_is_an_error_that_lists_them(text: str, candidates: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        card_named(text)
    assert all(name in caught.value.detail for name in candidates)


def test_what_is_no_known_card_is_none() -> None:
    assert [card_named(text) for text in ("", "RTX", "rx 7900 xtx", "RTX 3065", "Arc B580")] == [None] * 5


def test_a_typical_card_has_the_memory_asked_for() -> None:
    names = [typical_card(vram_gb).name for vram_gb in (6, 8, 12, 16, 24, 32, 48, 80)]
    assert names == ["RTX 4060", "RTX 4060", "RTX 3060", "RTX 4060 Ti", "RTX 3090", "RTX 5090", "RTX A6000",
                     "A100 80GB PCIe"]  # fmt: skip
    assert typical_card(20).vram_gb == 20


def test_the_drivers_memory_and_link_win_over_the_table() -> None:
    card = card_of(gpu("NVIDIA GeForce RTX 3060", 11.99, link=Link(1, 3, 4, 4, 16)))
    assert (card.name, card.vram_gb, card.rates.bandwidth, card.remark) == ("RTX 3060", 11.99, 360, "")
    assert card.link_gb_s == link_gb_s(3, 4)  # the generation under load, the lanes in use
    assert card_of(gpu("NVIDIA GeForce RTX 3060", 8.0)).rates.bandwidth == 240
    assert card_of(gpu("NVIDIA GeForce RTX 3060", None)).link_gb_s == link_gb_s(4, 16)


def test_an_unknown_card_is_its_slowest_relative_and_says_so() -> None:
    card = card_of(gpu("NVIDIA GeForce RTX 4065", 12.0, (8, 9)))
    assert card.rates == rates_of("RTX 4070") and card.vram_gb == 12.0
    assert "RTX 4065" in card.remark and "RTX 4070" in card.remark and "guess" in card.remark
    assert card_of(gpu("NVIDIA X1", 250.0, (13, 0))).rates.fp8 > 0  # later than any known: like the newest
    assert card_of(gpu("NVIDIA Thor", None, (11, 0))).capability == (11, 0)
    old = card_of(gpu("NVIDIA GeForce GTX 1080 Ti", 11.0, (6, 1)))
    assert (old.rates.bf16, old.rates.int8, old.capability) == (0, 0, (6, 1))
    assert "unknown" in card_of(gpu("Graphics Device", 24.0, None)).remark


def test_a_mig_slice_is_its_share_of_the_card() -> None:
    card = card_of(gpu("NVIDIA A100-SXM4-40GB MIG 3g.20gb", 19.5, (8, 0), mig=True, slice="3g.20gb"))
    whole = rates_of("A100-SXM4-40GB")
    assert whole is not None and card.vram_gb == 19.5
    assert card.rates.bf16 == pytest.approx(whole.bf16 * 3 / 7)
    assert card.rates.bandwidth == pytest.approx(whole.bandwidth * 19.5 / 40)
    assert "slice" in card.remark
