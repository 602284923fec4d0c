"""Which linears are chosen by which settings."""

from __future__ import annotations

import pytest
import torch
from flux_reference import TINY, all_kinds

from engine.config import LoraConfig
from engine.errors import ConfigError
from engine.lora.adapter import describe_linears
from engine.lora.targets import Target, select_targets
from engine.models.family import FLUX1
from engine.models.flux import FluxParams, FluxTransformer

with torch.device("meta"):
    SHAPES = describe_linears(FluxTransformer(TINY), all_kinds(TINY))


def _select(**settings: object) -> list[Target]:
    return select_targets(SHAPES, LoraConfig.model_validate(settings))


def _names(**settings: object) -> set[str]:
    return {target.name for target in _select(**settings)}


def test_default_is_attention_and_mlp_of_all_blocks() -> None:
    rests = {name.split(".", 2)[2] for name in _names()}
    assert rests == {"img_attn.qkv", "img_attn.proj", "img_mlp.0", "img_mlp.2", "txt_attn.qkv", "txt_attn.proj",
                     "txt_mlp.0", "txt_mlp.2", "linear1", "linear2"}  # fmt: skip
    assert len(_select()) == 2 * 8 + 2 * 2


def test_all_adds_modulation_and_keeps_the_order_of_the_model() -> None:
    assert [target.name for target in _select(targets="all")] == list(SHAPES)


def test_full_size_has_304_modules() -> None:
    with torch.device("meta"):
        model = FluxTransformer(FluxParams())
    # The family, which the trainer asks, and the file layouts know the same linears by the same kinds.
    assert FLUX1.lora_modules(model) == all_kinds(model.params)
    shapes = describe_linears(model, all_kinds(model.params))
    targets = select_targets(shapes, LoraConfig(targets="all", rank=16))
    assert len(targets) == 304
    assert sum(target.num_parameters for target in targets) == 76_578_816
    assert len(select_targets(shapes, LoraConfig())) == 19 * 8 + 38 * 2


@pytest.mark.parametrize(
    ("double", "single", "wanted"),
    [
        ("all", "none", {"double_blocks.0", "double_blocks.1"}),
        ("none", "1", {"single_blocks.1"}),
        ("0", "0-1", {"double_blocks.0", "single_blocks.0", "single_blocks.1"}),
        (" 1 , 0 ", "None", {"double_blocks.0", "double_blocks.1"}),
    ],
)
def test_blocks(double: str, single: str, wanted: set[str]) -> None:
    names = _names(double_blocks=double, single_blocks=single)
    assert {".".join(name.split(".")[:2]) for name in names} == wanted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("7", "block 7"),
        ("0-2", "block 2"),
        ("1-0", "'1-0'"),
        ("x", "'x'"),
        ("", "''"),
        ("0,,1", "''"),
        ("-1", "'-1'"),
    ],
)
def test_bad_blocks_are_named(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _select(double_blocks=text)
    assert "double_blocks" in caught.value.title
    assert says in caught.value.detail


def test_include_and_exclude_search_names() -> None:
    assert _names(include=(r"img_attn",), exclude=(r"\.proj$",)) == {
        "double_blocks.0.img_attn.qkv",
        "double_blocks.1.img_attn.qkv",
    }


@pytest.mark.parametrize("key", ["include", "exclude"])
def test_a_bad_pattern_is_named(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _select(**{key: ("img_(attn",)})
    assert key in caught.value.title
    assert "'img_(attn'" in caught.value.detail


@pytest.mark.parametrize("key", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_is_an_error(key: str) -> None:
    with pytest.raises(ConfigError, match=f"lora.{key} matches no module"):
        _select(**{key: ("to_q",)})


def test_rank_and_alpha_by_kind() -> None:
    targets = _select(rank=8, alpha=4.0, ranks={"txt_mlp": 0, "single": 2}, alphas={"img_mlp": 1.0})
    by_kind = {target.kind: (target.rank, target.alpha) for target in targets}
    assert by_kind == {"img_attn": (8, 4.0), "txt_attn": (8, 4.0), "img_mlp": (8, 1.0), "single": (2, 4.0)}


def test_alpha_unset_is_the_rank() -> None:
    assert {target.scale for target in _select(rank=8, ranks={"single": 3})} == {1.0}


def test_a_rank_of_its_own_takes_a_modulation_kind_in() -> None:
    assert {target.kind for target in _select(ranks={"img_mod": 4})} >= {"img_mod"}
    assert "txt_mod" not in {target.kind for target in _select(ranks={"img_mod": 4})}


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(ConfigError) as caught:
        _select(double_blocks="none", single_blocks="none")
    assert "train nothing" in caught.value.title
    with pytest.raises(ConfigError) as caught:
        _select(include=("img_mod",))
    assert 'targets = "all"' in caught.value.hint


def test_an_unknown_kind_is_refused_by_the_configuration() -> None:
    with pytest.raises(ValueError, match="unknown kind 'clip'"):
        LoraConfig(ranks={"clip": 4})
