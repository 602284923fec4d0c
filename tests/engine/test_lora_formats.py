"""LoRA files: round trips between layouts keep the update, hashes are right, bad files get clear errors."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import stat
from pathlib import Path

import pytest
import torch
from flux_reference import TINY, all_kinds
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.config import LoraConfig
from engine.errors import ConfigError, DiskError, ModelFileError
from engine.lora import formats
from engine.lora.adapter import describe_linears
from engine.lora.formats import DType, Layout, fit_state, load_lora, save_lora
from engine.lora.layouts import diffusers_names, kohya_name, module_of_diffusers, module_of_kohya
from engine.lora.targets import Target, select_targets
from engine.models.flux import FluxTransformer

with torch.device("meta"):
    SHAPES = describe_linears(FluxTransformer(TINY), all_kinds(TINY))

State = dict[str, Tensor]


def _lora(**settings: object) -> tuple[State, list[Target]]:
    config = LoraConfig.model_validate({"rank": 4, "alpha": 3.0, "targets": "all", **settings})
    targets = select_targets(SHAPES, config)
    generator = torch.Generator().manual_seed(1)
    state = {}
    for target in targets:
        state[f"{target.name}.lora_down.weight"] = torch.randn(target.rank, target.in_features, generator=generator)
        state[f"{target.name}.lora_up.weight"] = torch.randn(target.out_features, target.rank, generator=generator)
    return state, targets


def _deltas(state: State, targets: list[Target]) -> State:
    return {
        target.name: target.scale * state[f"{target.name}.lora_up.weight"] @ state[f"{target.name}.lora_down.weight"]
        for target in targets
    }


def _assert_same_updates(first: tuple[State, list[Target]], second: tuple[State, list[Target]]) -> None:
    one, two = _deltas(*first), _deltas(*second)
    assert one.keys() == two.keys()
    for name, delta in one.items():
        torch.testing.assert_close(two[name], delta, rtol=1e-5, atol=1e-5)


def test_names_go_both_ways() -> None:
    for module in SHAPES:
        assert module_of_kohya(kohya_name(module)) == module
        for number, name in enumerate(diffusers_names(module)):
            assert module_of_diffusers(name) == (module, number)
    assert module_of_kohya("lora_unet_single_blocks_00_linear1") is None
    assert module_of_diffusers("transformer.transformer_blocks.0.attn.to_x") is None


def test_kohya_file_comes_back_exactly(tmp_path: Path) -> None:
    state, targets = _lora(ranks={"img_mlp": 2}, alphas={"single": 0.3})
    save_lora(tmp_path / "a.safetensors", state, targets, "kohya", "float32", {})
    back, found = load_lora(tmp_path / "a.safetensors")
    assert {t.name: t for t in found} == {
        t.name: t if t.kind != "single" else Target(**{**vars(t), "alpha": pytest.approx(0.3)}) for t in targets
    }
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_sixteen_bits_round_the_weights_but_not_the_alphas(tmp_path: Path, layout: Layout, dtype: DType) -> None:
    state, targets = _lora(alpha=3.3)
    save_lora(tmp_path / "a.safetensors", state, targets, layout, dtype, {})
    for name, tensor in load_file(tmp_path / "a.safetensors").items():
        assert tensor.dtype == (torch.float32 if name.endswith(".alpha") else getattr(torch, dtype))
    one, two = _deltas(state, targets), _deltas(*load_lora(tmp_path / "a.safetensors"))
    for name, delta in one.items():
        assert (two[name] - delta).norm() / delta.norm() < 0.01


def test_kohya_to_diffusers_and_back_keeps_the_update(tmp_path: Path) -> None:
    start = _lora(ranks={"img_mlp": 2, "single": 6}, alphas={"txt_attn": 0.5})
    save_lora(tmp_path / "k.safetensors", *start, "kohya", "float32", {})
    first = load_lora(tmp_path / "k.safetensors")
    save_lora(tmp_path / "d.safetensors", *first, "diffusers", "float32", {})
    second = load_lora(tmp_path / "d.safetensors")
    save_lora(tmp_path / "k2.safetensors", *second, "kohya", "float32", {})
    third = load_lora(tmp_path / "k2.safetensors")
    for other in (first, second, third):
        _assert_same_updates(start, other)
    # Shared downs are recognised: the rank has not grown.
    assert [t.rank for t in third[1]] == [t.rank for t in first[1]]


def test_diffusers_file_has_an_alpha_per_module_and_splits_fused_linears(tmp_path: Path) -> None:
    state, targets = _lora(include=(r"double_blocks\.0\.img_attn\.qkv|single_blocks\.0\.linear1",))
    save_lora(tmp_path / "d.safetensors", state, targets, "diffusers", "float32", {})
    tensors = load_file(tmp_path / "d.safetensors")
    modules = {name.rsplit(".lora_", 1)[0] for name in tensors if ".lora_" in name}
    assert modules == {
        f"transformer.{blocks}.0.attn.{part}"
        for blocks in ("transformer_blocks", "single_transformer_blocks")
        for part in ("to_q", "to_k", "to_v")
    } | {"transformer.single_transformer_blocks.0.proj_mlp"}
    for module in modules:
        assert tensors[f"{module}.alpha"] == tensors[f"{module}.lora_A.weight"].shape[0] == 4
    qkv = "double_blocks.0.img_attn.qkv"
    down, up = (
        tensors["transformer.transformer_blocks.0.attn.to_k.lora_A.weight"],
        tensors["transformer.transformer_blocks.0.attn.to_k.lora_B.weight"],
    )
    torch.testing.assert_close(down, 0.75 * state[f"{qkv}.lora_down.weight"])
    assert torch.equal(up, state[f"{qkv}.lora_up.weight"][48:96])


def _separate(parts: dict[str, tuple[int, int, float | None]], width: int = 48) -> State:
    """A diffusers-layout file whose parts have downs of their own: (rank, rows, alpha) by name."""
    generator = torch.Generator().manual_seed(9)
    tensors = {}
    for name, (rank, rows, alpha) in parts.items():
        tensors[f"{name}.lora_A.weight"] = torch.randn(rank, width, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(rows, rank, generator=generator)
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


def _stacked(tensors: State, names: list[str], rows: list[int], scales: list[float], width: int = 48) -> Tensor:
    return torch.cat(
        [
            scale * tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
            if f"{name}.lora_A.weight" in tensors
            else torch.zeros(row, width)
            for name, row, scale in zip(names, rows, scales, strict=True)
        ]
    )


def test_separate_q_k_v_are_fused_with_three_times_the_rank_and_alpha(tmp_path: Path) -> None:
    names = diffusers_names("double_blocks.1.txt_attn.qkv")
    tensors = _separate({name: (4, 48, 2.0) for name in names})
    save_file(tensors, tmp_path / "d.safetensors")
    state, (target,) = load_lora(tmp_path / "d.safetensors")
    assert (target.name, target.rank, target.alpha) == ("double_blocks.1.txt_attn.qkv", 12, 6.0)
    up = state[f"{target.name}.lora_up.weight"]
    assert up[:48, 4:].count_nonzero() == 0 and up[48:96, :4].count_nonzero() == 0
    wanted = _stacked(tensors, names, [48] * 3, [0.5] * 3)
    torch.testing.assert_close(_deltas(state, [target])[target.name], wanted)


def test_parts_of_different_strength_and_absent_parts(tmp_path: Path) -> None:
    names = diffusers_names("single_blocks.0.linear1")
    tensors = _separate({names[0]: (4, 48, 2.0), names[2]: (2, 48, None), names[3]: (3, 192, 9.0)})
    save_file(tensors, tmp_path / "d.safetensors")
    state, (target,) = load_lora(tmp_path / "d.safetensors")
    assert (target.rank, target.alpha, target.out_features) == (9, 9.0, 336)
    wanted = _stacked(tensors, names, [48, 48, 48, 192], [0.5, 0.0, 1.0, 3.0])
    torch.testing.assert_close(_deltas(state, [target])[target.name], wanted)


def test_alphas_in_peft_metadata_are_understood(tmp_path: Path) -> None:
    names = diffusers_names("double_blocks.0.img_mlp.0") + diffusers_names("double_blocks.0.img_attn.proj")
    tensors = _separate({names[0]: (4, 192, None), names[1]: (4, 48, None)})
    config = {
        "transformer.r": 4,
        "transformer.lora_alpha": 8,
        "transformer.alpha_pattern": {"transformer_blocks.0.attn.to_out.0": 1},
    }
    save_file(tensors, tmp_path / "d.safetensors", {"lora_adapter_metadata": json.dumps(config)})
    _, targets = load_lora(tmp_path / "d.safetensors")
    assert {t.name: t.alpha for t in targets} == {
        "double_blocks.0.img_mlp.0": 8.0,
        "double_blocks.0.img_attn.proj": 1.0,
    }


def test_absent_alpha_counts_as_the_rank(tmp_path: Path) -> None:
    name = "lora_unet_single_blocks_0_linear2"
    tensors = {f"{name}.lora_down.weight": torch.ones(4, 240), f"{name}.lora_up.weight": torch.ones(48, 4)}
    save_file(tensors, tmp_path / "k.safetensors")
    _, (target,) = load_lora(tmp_path / "k.safetensors")
    assert target == Target("single_blocks.0.linear2", "single", 240, 48, 4, 4.0)


def test_hashes_are_those_of_the_contents(tmp_path: Path) -> None:
    state, targets = _lora()
    path = tmp_path / "a.safetensors"
    save_lora(path, state, targets, "kohya", "float32", {"ss_seed": "1", "modelspec.title": "t"})
    raw = path.read_bytes()
    digest = hashlib.sha256(raw[8 + int.from_bytes(raw[:8], "little") :]).hexdigest()
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["sshs_model_hash"] == digest
    assert metadata["modelspec.hash_sha256"] == f"0x{digest}"
    assert len(metadata["sshs_legacy_hash"]) == 8
    # The free metadata change neither.
    save_lora(path, state, targets, "kohya", "float32", {"ss_seed": "1", "modelspec.title": "another"})
    with safe_open(path, framework="pt") as file:
        assert {key: file.metadata()[key] for key in metadata if key.startswith("sshs")} == {
            key: value for key, value in metadata.items() if key.startswith("sshs")
        }


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    state, targets = _lora()
    metadata = {f"ss_{n}": str(n) for n in range(50)}
    save_lora(tmp_path / "a.safetensors", state, targets, "kohya", "bfloat16", metadata)
    save_lora(tmp_path / "b.safetensors", state, targets, "kohya", "bfloat16", dict(reversed(metadata.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_file_is_readable_by_others_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    state, targets = _lora()
    path = tmp_path / "new" / "a.safetensors"
    save_lora(path, state, targets, "kohya", "float32", {"ss_a": "ü"})
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    assert [entry.name for entry in path.parent.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused_and_the_old_file_stands(tmp_path: Path, value: float) -> None:
    state, targets = _lora()
    path = tmp_path / "a.safetensors"
    save_lora(path, state, targets, "kohya", "float32", {})
    before = path.read_bytes()
    name = f"{targets[5].name}.lora_up.weight"
    state[name][0, 0] = value
    with pytest.raises(ModelFileError) as caught:
        save_lora(path, state, targets, "kohya", "float32", {})
    assert "not finite" in caught.value.title
    assert kohya_name(targets[5].name) in caught.value.detail
    assert path.read_bytes() == before


def test_weights_beyond_float16_are_refused_with_the_way_out(tmp_path: Path) -> None:
    state, targets = _lora()
    state[f"{targets[0].name}.lora_down.weight"][0, 0] = 1e5
    with pytest.raises(ModelFileError) as caught:
        save_lora(tmp_path / "a.safetensors", state, targets, "kohya", "float16", {})
    assert "bfloat16" in caught.value.hint


def test_a_read_only_folder_is_a_disk_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, targets = _lora()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(DiskError, match="cannot be written"):
        save_lora(tmp_path / "a.safetensors", state, targets, "kohya", "float32", {})


NAME = "lora_unet_single_blocks_0_linear2"
GOOD = {f"{NAME}.lora_down.weight": torch.ones(4, 240), f"{NAME}.lora_up.weight": torch.ones(48, 4)}


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"img_in.weight": torch.ones(2, 2)}, "named neither"),
        ({**GOOD, "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(4, 2),
          "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(2, 4)}, "lora_te1"),
        ({**GOOD, "lora_unet_img_in.lora_down.weight": torch.ones(4, 2),
          "lora_unet_img_in.lora_up.weight": torch.ones(2, 4)}, "lora_unet_img_in"),
        ({f"{NAME}.lora_down.weight": torch.ones(4, 240)}, "lacks its up"),
        ({**GOOD, f"{NAME}.lora_up.weight": torch.ones(48, 3)}, "do not multiply"),
        ({**GOOD, f"{NAME}.lora_up.weight": torch.ones(48, 4, 1, 1)}, "do not multiply"),
        ({**GOOD, f"{NAME}.alpha": torch.ones(2)}, "wanted one number"),
        ({**GOOD, f"{NAME}.alpha": torch.tensor(float("inf"))}, "infinite or not a number"),
        ({**GOOD, f"{NAME}.lora_up.weight": torch.full((48, 4), float("nan"))}, "infinite or not a number"),
        ({**GOOD, f"{NAME}.lora_up.weight": torch.ones(48, 4, dtype=torch.int32)}, "is I32"),
        ({**GOOD, f"{NAME}.diff_b": torch.ones(4)}, "no part of a plain LoRA"),
        ({f"{NAME}.hada_w1_a": torch.ones(4, 4)}, "it is a LoHa"),
        ({**GOOD, f"{NAME}.dora_scale": torch.ones(48, 1)}, "it is a DoRA"),
    ],
)  # fmt: skip
def test_files_that_are_no_plain_flux_lora_are_refused(tmp_path: Path, tensors: State, says: str) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    with pytest.raises(ModelFileError) as caught:
        load_lora(path)
    assert says in str(caught.value)


def test_parts_of_another_model_are_refused(tmp_path: Path) -> None:
    names = diffusers_names("double_blocks.0.img_attn.qkv")
    save_file(_separate({names[0]: (4, 48, None), names[1]: (4, 40, None)}), tmp_path / "d.safetensors")
    with pytest.raises(ModelFileError, match="do not belong"):
        load_lora(tmp_path / "d.safetensors")


@pytest.mark.parametrize("key", ["use_dora", "use_rslora"])
def test_peft_variants_with_another_arithmetic_are_refused(tmp_path: Path, key: str) -> None:
    (name,) = diffusers_names("double_blocks.0.img_mlp.0")
    config = {"transformer.r": 4, "transformer.lora_alpha": 4, f"transformer.{key}": True}
    save_file(
        _separate({name: (4, 192, None)}), tmp_path / "d.safetensors", {"lora_adapter_metadata": json.dumps(config)}
    )
    with pytest.raises(ModelFileError) as caught:
        load_lora(tmp_path / "d.safetensors")
    assert key in caught.value.detail


def test_a_truncated_file_and_a_pickle_are_refused(tmp_path: Path) -> None:
    state, targets = _lora()
    path = tmp_path / "a.safetensors"
    save_lora(path, state, targets, "kohya", "float32", {})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelFileError):
        load_lora(path)
    pickled = tmp_path / "a.pt"
    torch.save(state, pickled)
    with pytest.raises(ModelFileError):
        load_lora(pickled)


def test_damaged_files_load_or_get_a_model_file_error(tmp_path: Path) -> None:
    state, targets = _lora(include=(r"blocks\.0\..*(proj|linear1)",))
    path = tmp_path / "a.safetensors"
    for layout in ("kohya", "diffusers"):
        save_lora(path, state, targets, layout, "bfloat16", {"ss_a": "b"})
        good = path.read_bytes()
        head = 8 + int.from_bytes(good[:8], "little")
        chance = random.Random(3)
        for _ in range(150):
            damaged = bytearray(good)
            for _ in range(chance.randint(1, 3)):
                damaged[chance.randrange(head + 40)] = chance.randrange(256)
            path.write_bytes(damaged)
            with contextlib.suppress(ModelFileError):
                load_lora(path)


def test_fit_state_rescales_to_the_wanted_strength() -> None:
    state, found = _lora(alpha=2.0)
    _, wanted = _lora(alpha=8.0)
    fitted = fit_state(state, found, wanted)
    _assert_same_updates((state, found), (fitted, wanted))


def test_fit_state_names_what_differs() -> None:
    state, found = _lora(double_blocks="0")
    _, wanted = _lora(single_blocks="none", ranks={"img_mlp": 2})
    with pytest.raises(ConfigError) as caught:
        fit_state(state, found, wanted)
    assert "is not in the file" in caught.value.detail


def test_numbers_that_are_not_those_it_was_saved_with_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, targets = _lora()
    ours = {"modelspec.implementation_version": "lorakiln 0.1"}
    for path, said in ((tmp_path / "ours.safetensors", ours), (tmp_path / "theirs.safetensors", {})):
        save_lora(path, state, targets, "kohya", "float32", said)
        data = bytearray(path.read_bytes())
        data[-40] ^= 1  # the lowest bit of a number: finite, and plausible
        path.write_bytes(data)
    with pytest.raises(ModelFileError, match="checksum"):
        load_lora(tmp_path / "ours.safetensors")
    assert caplog.messages == []
    # Other programs change a file and leave the old hash in it: said, not refused.
    load_lora(tmp_path / "theirs.safetensors")
    assert "may be damaged" in caplog.text


def test_a_file_cut_while_it_is_read_is_an_error_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mapped file would end the process with SIGBUS here."""
    path = tmp_path / "a.safetensors"
    save_lora(path, *_lora(), "kohya", "float32", {})
    layout_of = formats._layout

    def cut_first(header: formats.Header) -> Layout:
        os.truncate(path, header.data_offset + 100)
        return layout_of(header)

    monkeypatch.setattr(formats, "_layout", cut_first)
    with pytest.raises(ModelFileError, match="changed meanwhile"):
        load_lora(path)


def test_numbers_need_not_lie_aligned(tmp_path: Path) -> None:
    state, targets = _lora()
    save_lora(tmp_path / "a.safetensors", state, targets, "kohya", "bfloat16", {})
    whole = (tmp_path / "a.safetensors").read_bytes()
    length = int.from_bytes(whole[:8], "little")
    odd = (length + 1).to_bytes(8, "little") + whole[8 : 8 + length] + b" " + whole[8 + length :]
    (tmp_path / "odd.safetensors").write_bytes(odd)
    (one, _), (two, _) = load_lora(tmp_path / "a.safetensors"), load_lora(tmp_path / "odd.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)
