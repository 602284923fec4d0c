"""The out-of-memory ladder on paper: what may be written, what is derived, and what a rung lowers."""

import pytest
from pocket import pocket_config
from pydantic import ValidationError

from engine.config import MemoryConfig
from engine.config_memory import AUTO, Rung, parse_rung
from engine.memory.rungs import Footing, derive_rungs, footing_of, rungs_of

WIDE = Footing("none", 0, 4, "auto")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("auto", AUTO),
        ("off", ()),
        ([], ()),
        (
            ["empty_cache", "blocks_to_swap=28", "micro_batch=1"],
            ("empty_cache", "blocks_to_swap=28", "micro_batch=1"),
        ),
    ],
)
def test_what_may_stand_in_a_configuration(given, kept):
    assert MemoryConfig(ladder=given).ladder == kept


@pytest.mark.parametrize(
    ("rung", "said"),
    [
        ("swap=3", "no rung; known are empty_cache, gradient_checkpointing"),
        ("blocks_to_swap", "wants a number from 1 to 1000"),
        ("blocks_to_swap=0", "wants a number from 1 to 1000"),
        ("micro_batch=²", "wants a number from 1 to 4096"),
        ("gradient_checkpointing=none", "wants one of attention, full, offload"),
        ("empty_cache=1", "wants no value"),
        ("precision=int8", "needs memory.allow_lower_precision = true"),
    ],
)
def test_what_may_not(rung, said):
    with pytest.raises(ValidationError, match="ladder: ") as caught:
        MemoryConfig(ladder=[rung])
    assert said in str(caught.value)


def test_a_rung_is_its_text():
    for text in ("empty_cache", "blocks_to_swap=28", "precision=nf4"):
        assert str(parse_rung(text)) == text


def test_the_derived_ladder_goes_from_cheap_to_dear():
    assert [str(rung) for rung in derive_rungs(WIDE, 57, False)] == [
        "empty_cache", "gradient_checkpointing=full", "gradient_checkpointing=offload",
        "blocks_to_swap=14", "blocks_to_swap=28", "blocks_to_swap=43", "blocks_to_swap=57",
        "micro_batch=2", "micro_batch=1",
    ]  # fmt: skip
    low = Footing("offload", 40, 1, "int8")
    assert [str(rung) for rung in derive_rungs(low, 57, True)] == [
        "empty_cache", "blocks_to_swap=43", "blocks_to_swap=57", "precision=nf4",
    ]  # fmt: skip


def test_a_rung_that_lowers_nothing_is_none():
    for rung in ("gradient_checkpointing=full", "blocks_to_swap=3", "micro_batch=2", "precision=fp8", "empty_cache"):
        assert Footing("full", 3, 2, "int8").below(parse_rung(rung)) is None


def test_a_base_packed_on_the_way_is_unpacked_for_its_products():
    below = WIDE.below(Rung("precision", "int8"))
    assert below is not None and (below.precision, below.compute) == ("int8", "wide")


def test_a_footing_says_how_to_load(tmp_path):
    config = pocket_config(tmp_path, training={"batch_size": 2})
    assert footing_of(config) == Footing("full", 0, 2, "auto")
    lower = Footing("offload", 3, 1, "int8", "wide").applied_to(config)
    assert (lower.memory.blocks_to_swap, lower.memory.precision, lower.memory.compute) == (3, "int8", "wide")
    assert lower.training.gradient_checkpointing == "offload"
    assert lower.training.batch_size == 2  # the order of pictures is what it was
    written = pocket_config(tmp_path, memory={"ladder": ["empty_cache", "blocks_to_swap=2"]})
    assert [str(rung) for rung in rungs_of(written, 4)] == ["empty_cache", "blocks_to_swap=2"]
    assert rungs_of(pocket_config(tmp_path, memory={"ladder": "off"}), 4) == ()
